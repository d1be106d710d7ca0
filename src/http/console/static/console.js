"use strict";
// Keeps what a page shows of the store up to date. Without it the page is reloaded by hand.
const PERIOD = 2000;
const parts = () => document.querySelectorAll("[data-live]");
const chosen = () => document.querySelector("[data-live] input:checked");
async function refresh() {
  if (document.hidden || chosen()) return;
  const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts()) {
    const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!next || next.innerHTML === part.innerHTML || part.contains(document.activeElement)) continue;
    part.replaceChildren(...next.childNodes);
    const log = part.querySelector("pre");
    if (log) log.scrollTop = log.scrollHeight;
  }
}
if (parts().length) {
  const again = () => refresh().catch(() => {}).finally(() => setTimeout(again, PERIOD));
  setTimeout(again, PERIOD);
}
