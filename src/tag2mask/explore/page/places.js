// Where the reader was: which control had the focus and how far the page was scrolled, for each step of the history.

const KEPT = "places", MOST_WAITING = 1000; // milliseconds for a large photo, without which the page is too short to scroll
const places = new Map(JSON.parse(sessionStorage.getItem(KEPT) || "[]"));
let step = "", steps = 0;

function keyOf(node) { // what names a control, also when the view is made again
  return node.localName === "h1" ? "h1" : node.id ? `#${node.id}` : node.dataset.key ?? node.getAttribute("href");
}

function named(key, content) {
  return [...content.querySelectorAll("h1, a, button, input, select, canvas, code")].find((node) => keyOf(node) === key);
}

export function whereabouts(content) {
  const active = document.activeElement;
  return { key: active !== content && content.contains(active) ? keyOf(active) ?? "h1" : null, scroll: scrollY };
}

export function leave(place) {
  if (step) places.set(step, place);
}

export function arrive() { // what is remembered of this step of the history; undefined when it is a new one
  if (!history.state?.step) history.replaceState({ step: `${performance.timeOrigin} ${steps++}` }, "");
  step = history.state.step;
  return places.get(step);
}

export async function photosLoaded(root) {
  const photos = [...root.querySelectorAll(".two img")];
  photos.forEach((photo) => { photo.loading = "eager"; });
  await Promise.race([Promise.allSettled(photos.map((photo) => photo.decode())), new Promise((done) => setTimeout(done, MOST_WAITING))]);
}

export function focusTitle(content) {
  const title = content.querySelector("h1");
  if (!title) return;
  title.tabIndex = -1;
  title.focus({ preventScroll: true });
}

export function restore(place, content) {
  if (place.key && document.activeElement === document.body) {
    const match = named(place.key, content);
    const able = match?.disabled ? [...match.parentElement.querySelectorAll("button, input, select")].find((node) => !node.disabled) : match;
    if (able && able.localName !== "h1") able.focus({ preventScroll: true });
    else focusTitle(content);
  }
  scrollTo(0, place.scroll);
}

history.scrollRestoration = "manual"; // views come later than the browser scrolls
addEventListener("pagehide", () => {
  leave(whereabouts(document.getElementById("content")));
  sessionStorage.setItem(KEPT, JSON.stringify([...places]));
});
