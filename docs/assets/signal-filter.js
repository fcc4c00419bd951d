// A filter of the page of signals: by any words of an entry or of the table of words. Without scripts the page is whole.
(() => {
  const title = document.getElementById("signals");
  const first = document.getElementById("by-the-fields-word");
  if (!title || !first) return;

  const box = document.createElement("div");
  box.className = "signal-filter";
  box.innerHTML =
    '<input type="search" aria-label="Filter the signals" placeholder="Filter: drawdown, funding, unknown …">' +
    '<span aria-live="polite"></span>';
  first.before(box);
  const [input, count] = box.children;

  // Each heading with what follows it until the next one of its level or above.
  const parts = (level) => {
    const found = [];
    for (const heading of first.parentElement.querySelectorAll(level)) {
      const elements = [heading];
      for (let next = heading.nextElementSibling; next && !/^H[23]$/.test(next.tagName); next = next.nextElementSibling)
        elements.push(next);
      found.push(elements);
    }
    return found;
  };
  const entries = parts("h3").map((elements) => ({
    elements, text: elements.map((each) => each.textContent).join(" ").toLowerCase(), group: null,
  }));
  const groups = parts("h2").filter(([heading]) => heading.id.startsWith("group-"));
  for (const entry of entries)
    entry.group = groups.filter(([heading]) => heading.compareDocumentPosition(entry.elements[0]) & 4).pop();
  const index = document.getElementById("index");
  const rows = [...first.parentElement.querySelectorAll("table")[0].tBodies[0].rows];

  const show = (elements, shown) => elements.forEach((each) => { each.hidden = !shown; });
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (text) => words.every((word) => text.includes(word));
    const kept = entries.filter((entry) => fits(entry.text));
    for (const entry of entries) show(entry.elements, kept.includes(entry));
    for (const group of groups) show(group, kept.some((entry) => entry.group === group));
    let named = 0;
    for (const row of rows) named += !(row.hidden = !fits(row.textContent.toLowerCase()));
    show([first, rows[0].closest(".md-typeset__scrollwrap") || rows[0].closest("table")], named > 0);
    show([index, index.nextElementSibling], words.length === 0);
    count.textContent = words.length ? `${kept.length} of ${entries.length} signals` : "";
  };
  input.addEventListener("input", filter);
  // A link to an entry that is hidden shows the whole page again.
  window.addEventListener("hashchange", () => {
    if (document.getElementById(location.hash.slice(1))?.hidden) {
      input.value = "";
      filter();
      document.getElementById(location.hash.slice(1)).scrollIntoView();
    }
  });
})();
