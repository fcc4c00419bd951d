// Sends the token as JSON, because the server takes effects in no other form.
"use strict";
const form = document.getElementById("login");
const why = document.getElementById("why");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.getElementById("token");
  why.textContent = "";
  try {
    const answer = await fetch("board/login", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({token: token.value.trim()}),
    });
    if (answer.ok) {
      location.reload();
      return;
    }
    why.textContent = answer.status === 401
      ? "This is no valid token: it is mistyped, has expired, or was revoked."
      : (await answer.json()).detail;
  } catch {
    why.textContent = "The server does not answer.";
  }
  token.select();
});
