// Approvals: what waits, the text that a key signs on the machine of its owner, and the signed statement on its way to the
// runner. Nothing here approves anything: the signature does, and the runner verifies it.
"use strict";

const approval = document.getElementById("approval");
const ASK_EVERY = 1000; // milliseconds between two questions what became of a statement
const ASKED = 60;
let about = null; // the key of what is approved
let composed = ""; // the text that is signed
let readyToCarry = null; // the statement that the preview is of

async function readApproval(fingerprint) {
  const query = fingerprint ? `?fingerprint=${encodeURIComponent(fingerprint)}` : "";
  const answer = await fetch(`v1/approvals${query}`, {cache: "no-store"});
  const found = await answer.json();
  if (answer.status === 422) throw new Error("this is no fingerprint of an SSH key (SHA256:…) or an OpenPGP key (40 digits)");
  if (!answer.ok) throw new Error(found.detail || `status ${answer.status}`);
  return found.approvals.find((each) => each.key === about);
}

function described(found) {
  const missing = found.missing === 1 ? "1 approval is missing" : `${found.missing} approvals are missing`;
  const given = found.given.length ? `, and ${found.given.join(", ")} approved it` : "";
  return [
    line("summary", found.title),
    ...found.lines.map((each) => line("", each)),
    line("", `${missing}${given}.`),
    ...found.not_counted.map((each) => line("wrong", `Does not count: ${each}`)),
    ...(found.problem ? [line("wrong", found.problem)] : []),
  ];
}

async function openApproval(key) {
  about = key;
  composed = "";
  field("signed").value = "";
  field("signing").textContent = "The text appears here, once it is known whose key signs it.";
  forgetStatement();
  field("approves").replaceChildren(line("", "Reading what it changes…"));
  approval.showModal();
  field("fingerprint").focus();
  try {
    const found = await readApproval("");
    if (about !== key) return;
    field("approves").replaceChildren(...(found ? described(found) : [line("summary", "It does not wait any more.")]));
  } catch (error) {
    field("approves").replaceChildren(line("wrong", error.message));
  }
}

async function compose() {
  forgetStatement();
  try {
    const found = await readApproval(field("fingerprint").value.trim());
    if (!found) throw new Error("it does not wait any more");
    if (!found.text) throw new Error(found.problem || "type the fingerprint of your key first");
    composed = found.text;
    field("signing").textContent = found.command;
    field("signing").focus();
  } catch (error) {
    composed = "";
    field("signing").textContent = "";
    field("carried").replaceChildren(line("wrong", error.message));
  }
}

function forgetStatement() {
  readyToCarry = null;
  field("carried").replaceChildren();
  field("approval-typed").value = "";
  for (const name of ["approval-sure", "carry"]) field(name).hidden = true;
  field("carry").disabled = true;
}

function statement() {
  const pasted = field("signed").value.trim();
  return `${pasted.startsWith("-----BEGIN") ? composed + pasted : pasted}\n`;
}

async function previewStatement() {
  forgetStatement();
  const found = statement();
  try {
    if (found.trim() === "") throw new Error("paste the signature first");
    const shownNow = await send("v1/approvals/preview", {statement: found});
    if (shownNow.key !== about) throw new Error("this statement approves something else that waits: open that instead");
    field("carried").replaceChildren(
      ...shownNow.summary.map((each, index) => line(index ? "" : "summary", each)),
      ...shownNow.warnings.map((each) => line("", each)),
    );
    readyToCarry = found;
    field("approval-wanted").textContent = shownNow.confirm;
    for (const name of ["approval-sure", "carry"]) field(name).hidden = false;
    field("approval-typed").focus();
  } catch (error) {
    field("carried").replaceChildren(line("wrong", error.message));
  }
}

async function carry() {
  const key = about;
  field("carry").disabled = true;
  let before = null;
  try {
    before = await readApproval("");
    await send("v1/approvals", {statement: readyToCarry});
  } catch (error) {
    field("carried").replaceChildren(line("wrong", `It is not known whether the approval was taken: ${error.message}`));
    return;
  }
  for (const name of ["approval-sure", "carry"]) field(name).hidden = true;
  field("carried").replaceChildren(line("summary", "It is on its way to the runner, which verifies it."));
  for (let tries = 0; tries < ASKED && about === key && approval.open; tries += 1) {
    await new Promise((done) => setTimeout(done, ASK_EVERY));
    const found = await readApproval("").catch(() => before);
    if (!found) return became("The runner has counted it, and nothing waits any more.", []);
    if (found.missing < before.missing) return became(`The runner has counted it: approved by ${found.given.join(", ")}.`, []);
    const refused = found.not_counted.filter((each) => !before.not_counted.includes(each));
    if (refused.length) return became("The runner does not count it.", refused);
  }
  if (about === key) became("The runner has not counted it for a minute: its log and `ksctl source status` say why.", []);
}

function became(text, reasons) {
  field("carried").replaceChildren(line("summary", text), ...reasons.map((each) => line("wrong", each)));
}

document.getElementById("approvals").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) openApproval(button.dataset.approval);
});
field("compose").addEventListener("click", compose);
field("fingerprint").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  compose();
});
field("signed").addEventListener("input", forgetStatement);
field("sign").addEventListener("submit", (event) => {
  event.preventDefault();
  if (readyToCarry === null) previewStatement();
  else if (!field("carry").disabled) carry();
});
field("approval-typed").addEventListener("input", () => {
  field("carry").disabled = field("approval-typed").value.trim() !== field("approval-wanted").textContent;
});
field("carry").addEventListener("click", carry);
field("approval-close").addEventListener("click", () => approval.close());
