// Keeps the page as it is at the server, and makes it look lost where it is not.
//
// The server renders; here parts are exchanged and bars are moved. What counts is the age of the data and not that of the
// connection: it comes with every event and is counted on here by the clock that runs faster, because one of them stops
// while a machine sleeps.
"use strict";

const SILENT_AFTER = 3000; // milliseconds without an event, which come each second
const HIDDEN_FOR = 60000; // a page that nobody sees gives its connection back: a browser has six for a host
const RETRY = [500, 1000, 2000, 5000];
const root = document.documentElement;
const meta = document.querySelector("meta[name=killswitch]");
const list = document.getElementById("list");
const filter = document.getElementById("filter");

let number = Number(meta.dataset.number);
let boot = meta.dataset.boot;
let proof = meta.dataset.proof;
let beat = null;
let at = null; // when the beat arrived, by both clocks
let source = null;
let cut = "connecting"; // why nothing comes; empty while it does
let failures = 0;
let waiting = null; // changes that arrive while the page is read again

take(JSON.parse(meta.content));

// Time and age

function take(next) {
  beat = next;
  at = {steady: performance.now(), wall: Date.now()};
}

function since() {
  return Math.max(performance.now() - at.steady, Date.now() - at.wall, 0);
}

function age() {
  return beat.age === null ? null : beat.age + since() / 1000;
}

function lostBecause() {
  const old = age();
  if (old === null || beat.interval === null) return "no run has ticked on this store";
  if (cut && failures > 0) return cut;
  if (source !== null && since() > SILENT_AFTER) return "the server does not answer";
  if (old < -2 * beat.interval) return "the data are dated ahead of the clock of this run";
  if (old > 2 * beat.interval) return beat.problem || "the runner has not ticked since";
  return "";
}

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86400)} d`;
}

function clock(text) {
  return text === null ? "never" : `${text.slice(11, 19)} UTC`;
}

function show() {
  const old = age();
  const why = lostBecause();
  const banner = document.getElementById("lost");
  const text = old === null ? "no data" : `${duration(Math.abs(old))} old`;
  if (why) {
    root.style.setProperty("--age", `"${text}"`);
    const words = `Lost: the data are ${old === null ? "missing" : text}`;
    if (banner.hidden || banner.dataset.why !== why) banner.replaceChildren(words, note(why));
    else banner.firstChild.data = words;
    banner.dataset.why = why;
  }
  banner.hidden = !why;
  root.classList.toggle("lost", Boolean(why));
  const head = document.querySelector("#headline h1");
  document.title = `${why ? "LOST · " : ""}${head ? head.textContent : "Killswitch"}`;
  document.getElementById("age").replaceChildren(bold(text), ` · as of ${clock(beat.as_of)}`);
  const now = Date.parse(beat.now) + since();
  for (const each of document.querySelectorAll("time[data-until]")) {
    const left = (Number(each.dataset.until) - now) / 1000;
    write(each, why ? "an unknown time" : left > 0 ? duration(left) : "now");
  }
  for (const each of document.querySelectorAll("time[data-since]")) {
    write(each, `for ${duration((now - Number(each.dataset.since)) / 1000)}`);
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function bold(text) {
  const found = document.createElement("b");
  found.textContent = text;
  return found;
}

function note(why) {
  const found = document.createElement("small");
  found.textContent = `${why[0].toUpperCase()}${why.slice(1)}. Nothing on this page is known to be so any more; it was so as of ${clock(beat.as_of)}.`;
  return found;
}

// Changes

function apply(change, next) {
  if (next <= number) return;
  if (next !== number + 1 || change.reload) {
    readAgain();
    return;
  }
  number = next;
  take(change.beat);
  for (const [name, html] of Object.entries(change.html)) exchange(document.getElementById(name), html);
  const items = new Map([...list.children].map((each) => [each.dataset.key, each]));
  for (const [key, html] of Object.entries(change.scopes)) {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    const fresh = holder.content.firstElementChild;
    const old = items.get(key);
    items.set(key, fresh);
    if (old) keepFocus(old, () => old.replaceWith(fresh), fresh);
    else list.append(fresh);
  }
  if (change.order) arrange(change.order, items);
  for (const [key, bars] of Object.entries(change.values)) move(items.get(key), bars);
  narrow();
  show();
}

function exchange(section, html) {
  const focused = section.contains(document.activeElement);
  section.innerHTML = html;
  if (focused) section.querySelector("button, a")?.focus();
}

function keepFocus(old, replace, fresh) {
  const focused = old.contains(document.activeElement);
  replace();
  if (focused) fresh.querySelector("button")?.focus();
}

function arrange(order, items) {
  const active = document.activeElement;
  const wanted = new Set(order);
  for (const [key, each] of items) if (!wanted.has(key)) each.remove();
  let place = list.firstElementChild;
  for (const key of order) {
    const each = items.get(key);
    if (!each) continue;
    if (each === place) place = place.nextElementSibling;
    else list.insertBefore(each, place);
  }
  if (active !== document.activeElement && list.contains(active)) active.focus();
}

function move(item, bars) {
  if (!item) return;
  const labels = item.querySelectorAll("label");
  for (const [index, reached, value] of bars) {
    const meter = labels[index].querySelector("meter");
    if (meter && reached !== null) meter.value = reached;
    write(labels[index].querySelector("b"), value);
  }
}

// The stream

function connect() {
  clearTimeout(connect.timer);
  source?.close();
  source = new EventSource("board/events");
  source.addEventListener("hello", (event) => {
    const first = JSON.parse(event.data);
    if (first.boot !== boot || first.number !== number || failures > 0) readAgain();
    else arrived(first);
  });
  source.addEventListener("beat", (event) => {
    if (waiting === null) take(JSON.parse(event.data));
    show();
  });
  source.addEventListener("change", (event) => {
    const change = {data: JSON.parse(event.data), number: Number(event.lastEventId)};
    if (waiting !== null) waiting.push(change);
    else apply(change.data, change.number);
  });
  source.addEventListener("lost", readAgain);
  source.addEventListener("end", (event) => drop(JSON.parse(event.data).why));
  source.addEventListener("error", () => drop("there is no connection to the server"));
}

function arrived(first) {
  cut = "";
  failures = 0;
  take(first);
  show();
}

function drop(why) {
  source?.close();
  source = null;
  waiting = null;
  cut = why;
  failures += 1;
  show();
  if (!document.hidden) connect.timer = setTimeout(connect, RETRY[Math.min(failures, RETRY.length) - 1]);
  if (failures > 1) session();
}

async function session() {
  try {
    if ((await fetch("board", {cache: "no-store"})).status === 401) location.reload();
  } catch {
    // still no connection, which the page shows already
  }
}

async function readAgain() {
  if (waiting !== null) return;
  waiting = [];
  try {
    const answer = await fetch("board", {cache: "no-store"});
    if (answer.status === 401) location.reload();
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("meta[name=killswitch]");
    for (const section of document.querySelectorAll("#mode, main section[id]")) {
      exchange(section, page.getElementById(section.id).innerHTML);
    }
    list.replaceChildren(...page.getElementById("list").children);
    number = Number(fresh.dataset.number);
    boot = fresh.dataset.boot;
    proof = fresh.dataset.proof;
    const later = waiting ?? [];
    waiting = null;
    arrived(JSON.parse(fresh.content));
    for (const each of later) apply(each.data, each.number);
    narrow();
    show();
  } catch {
    drop("the server does not answer");
  }
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(connect.hidden);
  if (document.hidden) {
    connect.hidden = setTimeout(() => {
      clearTimeout(connect.timer);
      source?.close();
      source = null;
      failures = Math.max(failures, 1);
      cut = "nobody looked at this page, and it was not kept up to date";
    }, HIDDEN_FOR);
  } else if (source === null) connect();
  show();
});
window.addEventListener("pageshow", show);

// The list

function narrow() {
  const words = filter.value.trim().toLowerCase();
  for (const each of list.children) {
    each.hidden = words !== "" && !each.querySelector("h3").textContent.toLowerCase().includes(words);
  }
}

filter.addEventListener("input", narrow);
document.getElementById("leave").addEventListener("click", async () => {
  await fetch("board/logout", {method: "POST", headers: {"Content-Type": "application/json", "X-Killswitch-Session": proof}, body: "{}"});
  location.reload();
});

// Commands: previewed, then confirmed by typing what they are about

const dialog = document.getElementById("command");
const shown = document.getElementById("shown");
const field = (name) => document.getElementById(name);
let shownFiring = null; // the number of the firing that the button was next to
let previewed = null; // the command that the preview is of

const scopes = JSON.parse(meta.dataset.scopes); // those of the token, which are all that it may command

function openCommand(scope, firing) {
  if (firing) field("kind").value = "acknowledge";
  else if (field("kind").value === "acknowledge") field("kind").value = "close";
  shownFiring = firing ? Number(firing) : null;
  field("known").replaceChildren(
    ...[...new Set([...scopes, ...[...list.children].flatMap(names)])].map((each) => {
      const option = document.createElement("option");
      option.value = each;
      return option;
    }),
  );
  if (scope) field("scope").value = scope;
  forget();
  dialog.showModal();
  field(firing ? "reason" : scope ? "kind" : "scope").focus();
}

function names(item) {
  const scope = item.querySelector("h3 button").textContent;
  return scopes.includes("portfolio") ? [scope, `policy/${item.querySelector("h3 small").textContent}`] : [scope];
}

function forget() {
  previewed = null;
  shown.replaceChildren();
  field("sure").hidden = true;
  field("do").hidden = true;
  field("do").disabled = true;
  field("typed").value = "";
  field("scope-label").textContent = field("kind").value === "acknowledge" ? "Decision" : "Scope";
  const timed = ["pause", "lock"].includes(field("kind").value);
  for (const name of ["minutes", "minutes-label"]) field(name).hidden = !timed;
}

function body() {
  const kind = field("kind").value;
  const scope = field("scope").value.trim();
  if (kind === "acknowledge") {
    const about = {kind, incident: scope, reason: field("reason").value.trim()};
    return shownFiring === null ? about : {...about, number: shownFiring};
  }
  const found = {kind, scope: scope === "portfolio" ? null : scope, reason: field("reason").value.trim()};
  if (["unlock", "reset"].includes(kind) && scope === "portfolio") found.scope = "portfolio";
  if (!field("minutes").hidden && field("minutes").value) found.seconds = Number(field("minutes").value) * 60;
  return found;
}

async function send(path, content, headers = {}) {
  const answer = await fetch(path, {
    method: "POST",
    headers: {"Content-Type": "application/json", "X-Killswitch-Session": proof, ...headers},
    body: JSON.stringify(content),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail || `status ${answer.status}`);
  return found;
}

function line(kind, text) {
  const found = document.createElement(kind === "pre" ? "pre" : "p");
  if (kind !== "pre") found.className = kind;
  else found.tabIndex = 0;
  found.textContent = text;
  return found;
}

async function preview() {
  forget();
  shown.replaceChildren(line("", "Working out what it would do…"));
  const command = body();
  try {
    const found = await send("v1/preview", command);
    const until = found.effect === "tighten" ? "It only reduces risk." : "It lets risk in again.";
    shown.replaceChildren(
      ...found.summary.map((each) => line("summary", each)),
      ...(found.text ? [line("pre", found.text)] : []),
      ...found.warnings.map((each) => line("wrong", each)),
      line("", `${until} Worked out on what was read at ${found.as_of}; nothing was sent yet.`),
    );
    ask(found.ids ? {...command, ids: found.ids} : command, found.confirm);
  } catch (error) {
    shown.replaceChildren(line("wrong", error.message));
    // What only reduces risk must stay possible where its preview is not.
    if (["close", "halt", "lock", "cancel"].includes(command.kind)) ask(command, command.scope || "portfolio");
  }
}

function ask(command, wanted) {
  previewed = command;
  field("wanted").textContent = wanted;
  field("sure").hidden = false;
  field("do").hidden = false;
  field("typed").focus();
}

async function give() {
  field("do").disabled = true;
  try {
    let found = await send("v1/commands", previewed, {"Idempotency-Key": `board-${crypto.randomUUID()}`});
    field("sure").hidden = true;
    field("do").hidden = true;
    for (let tries = 0; tries < 60; tries += 1) {
      shown.replaceChildren(
        line("summary", `${found.state}: ${found.kind} ${found.scope || "portfolio"}`),
        ...found.notices.map((each) => line("", each)),
        line("", found.decisions.length ? `decided: ${found.decisions.join(", ")}` : `runner: ${found.runner}`),
      );
      if (["applied", "expired"].includes(found.state)) return;
      await new Promise((done) => setTimeout(done, 500));
      found = await (await fetch(`v1/commands/${found.id}`, {cache: "no-store"})).json();
    }
  } catch (error) {
    shown.replaceChildren(line("wrong", `It is not known whether the command was taken: ${error.message}`));
  }
}

field("act").addEventListener("click", () => openCommand(""));
document.getElementById("firings").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) openCommand(button.dataset.decision, button.dataset.firing);
});
list.addEventListener("click", (event) => {
  const button = event.target.closest("h3 button");
  if (button) openCommand(button.textContent);
});
for (const name of ["kind", "scope", "minutes", "reason"]) field(name).addEventListener("input", forget);
field("give").addEventListener("submit", (event) => {
  event.preventDefault();
  if (previewed === null) preview();
  else if (!field("do").disabled) give();
});
field("typed").addEventListener("input", () => {
  field("do").disabled = field("typed").value.trim() !== field("wanted").textContent;
});
field("do").addEventListener("click", give);
field("cancel").addEventListener("click", () => dialog.close());

show();
setInterval(show, 250);
connect();
