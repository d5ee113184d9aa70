"use strict";
const data = JSON.parse(document.getElementById("rows").textContent);
const cards = [...document.querySelectorAll(".suspect")];
const column = data.columns.indexOf("decision");
const filters = ["class", "kind", "state"].map((id) => document.getElementById(id));
let decisions = cards.map(() => "");
let current = 0;

try { // a browser may forbid storage to pages from disk; then decisions last as long as the page
  const kept = JSON.parse(localStorage.getItem(data.key) || "[]");
  if (kept.length === cards.length) decisions = kept;
} catch { /* begin without */ }

function keep() {
  try { localStorage.setItem(data.key, JSON.stringify(decisions)); } catch { /* see above */ }
}

function show(n) {
  for (const button of cards[n].querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.decision === decisions[n]));
  }
}

function count() {
  const accepted = decisions.filter((d) => d === "accept").length;
  const rejected = decisions.filter((d) => d === "reject").length;
  document.getElementById("count").textContent =
    `${accepted + rejected} of ${cards.length} decided: ${accepted} accepted, ${rejected} rejected`;
}

function filter() {
  const [name, kind, state] = filters.map((select) => select.value);
  cards.forEach((card, n) => {
    const decided = decisions[n] || "undecided";
    card.hidden = (name && card.dataset.class !== name) || (kind && card.dataset.kind !== kind) || (state && decided !== state);
  });
  document.getElementById("none").hidden = cards.some((card) => !card.hidden);
  if (cards[current].hidden) point(Math.max(0, cards.findIndex((card) => !card.hidden)), false);
}

function point(n, scroll) {
  cards[current].classList.remove("current");
  current = n;
  cards[n].classList.add("current");
  if (scroll) {
    cards[n].focus({ preventScroll: true });
    cards[n].scrollIntoView({ block: "nearest" });
  }
}

function move(way) {
  let n = current + way;
  while (n >= 0 && n < cards.length && cards[n].hidden) n += way;
  if (n >= 0 && n < cards.length) point(n, true);
}

function decide(n, decision) {
  decisions[n] = decision;
  keep();
  show(n);
  count();
}

function cell(text) {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save() {
  const rows = data.rows.map((row, n) => row.map((text, i) => (i === column ? decisions[n] : text)));
  const text = [data.columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

cards.forEach((card, n) => {
  show(n);
  card.addEventListener("click", (event) => {
    point(n, false);
    const button = event.target.closest("button");
    if (button) decide(n, button.dataset.decision);
  });
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  const decision = { a: "accept", r: "reject", u: "" }[event.key];
  if (decision !== undefined && !cards[current].hidden) {
    decide(current, decision);
    if (decision) move(1);
  } else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
});
for (const select of filters) select.addEventListener("change", filter);
document.getElementById("save").addEventListener("click", save);
count();
point(0, false);
