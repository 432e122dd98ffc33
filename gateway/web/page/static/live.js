// Refreshes the live requests: asks for the part of the page that changes, and puts it in place of the old one.
// Without this script the page is the same, and a link refreshes it.
"use strict";

(() => {
  const EVERY_MS = 2000;
  const calls = document.getElementById("calls");
  const pause = document.getElementById("pause");
  const status = document.getElementById("refreshing");
  let paused = false;

  const refresh = async () => {
    // Nothing is replaced under somebody who is in it with the keyboard, or who looks elsewhere.
    if (paused || document.hidden || calls.contains(document.activeElement)) return;
    try {
      const answer = await fetch(calls.dataset.source + location.search, {
        headers: { "x-page-refresh": "1" },
        credentials: "same-origin",
      });
      if (answer.redirected) return void location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (paused || calls.contains(document.activeElement)) return;
      const left = [...calls.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
      calls.innerHTML = text;
      calls.querySelectorAll(".scroll").forEach((part, place) => { part.scrollLeft = left[place] || 0; });
      if (status.textContent) status.textContent = "";
    } catch {
      status.textContent = "The gateway does not answer; trying again.";
    }
  };

  pause.hidden = false;
  document.getElementById("refresh").hidden = true;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    status.textContent = paused ? "Paused." : "Refreshes every two seconds.";
    void refresh();
  });
  const loop = async () => {
    await refresh();
    setTimeout(loop, EVERY_MS);
  };
  setTimeout(loop, EVERY_MS);
})();
