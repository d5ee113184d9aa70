// The frame: which view, for which seed, method and moment. All of it stands in the address, after the #.

import { ask, failure, make, say, select } from "/page/parts.js";
import { arrive, focusTitle, leave, photosLoaded, restore, whereabouts } from "/page/places.js";
import { classes, negative, negatives } from "/page/prototypes.js";
import { plane } from "/page/plane.js";
import { compare } from "/page/compare.js";
import { fresh } from "/page/fresh.js";
import { photos } from "/page/photos.js";
import { blocked } from "/page/blocked.js";

const VIEWS = { classes, negatives, negative, map: plane, compare, photos, new: fresh, blocked };
const TABS = [["classes", "Classes"], ["negatives", "Prototypes"], ["map", "Map"], ["compare", "Compare"], ["photos", "Photos"],
  ["new", "New photo"], ["blocked", "Block list"]];
const OF_PROTOTYPES = ["classes", "negatives", "negative", "map"]; // views in which method and moment matter
const MOMENTS = { first: "before rectification", last: "after rectification" };
const content = document.getElementById("content");
let run = null, leaving = new AbortController(), shown = null, held = null; // the view that stands there; the place before one that loads

export function address(view, parameters) {
  return `#/${view}?${new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== ""))}`;
}

function here() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parameters = Object.fromEntries(new URLSearchParams(query || ""));
  const seed = run.seeds.find((each) => String(each.seed) === parameters.seed) || run.seeds[0];
  const method = seed.methods.find((each) => each.name === parameters.method) || seed.methods[0];
  const moment = method && (method.moments.includes(parameters.moment) ? parameters.moment : method.moments[0]);
  return { view: Object.hasOwn(VIEWS, path) ? path : "classes", parameters, seed, method, moment };
}

function contextOf(place) {
  const { seed, method, moment } = place, base = { seed: seed.seed, method: method?.name, moment };
  return {
    run, seed: seed.seed, photos: seed.photos, trained: seed.trained, method, moment, parameters: place.parameters, signal: leaving.signal,
    prototypes: () => base,
    to: (view, more = {}) => address(view, { ...base, ...more }),
    go: (view, more = {}) => { location.hash = address(view, { ...base, ...more }); },
    again: show,
    keep: (more) => { // the same view with other parameters, without a step back to them
      history.replaceState(history.state, "", address(place.view, { ...base, ...here().parameters, ...more }));
      tabs(here());
    },
    blocked: (answer) => { Object.assign(run, answer); tabs(here()); },
    methodName: (name) => run.titles[name] ?? name,
  };
}

function tabs(place) {
  const base = { seed: place.seed.seed, method: place.method?.name, moment: place.moment, class: place.parameters.class, image: place.parameters.image };
  const active = place.view === "negative" ? "negatives" : place.view;
  const nav = document.getElementById("views"), focused = [...nav.children].indexOf(document.activeElement);
  nav.replaceChildren(...TABS.map(([view, title]) => make("a", {
    href: address(view, base), "aria-current": view === active ? "page" : null,
    text: view === "blocked" && run.blocked.length ? `${title} (${run.blocked.length})` : title,
  })));
  if (shown?.view === place.view) nav.children[focused]?.focus();
  const current = nav.querySelector("[aria-current]"); // on a phone the tabs scroll
  if (current) nav.scrollLeft = current.offsetLeft - nav.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2;
}

function choices(place) {
  const fields = [], change = (more) => { location.hash = address(place.view, { ...here().parameters, seed: place.seed.seed, ...more }); };
  if (run.seeds.length > 1) fields.push(select("seed", run.seeds.map((each) => [each.seed, each.seed]), place.seed.seed, (seed) => change({ seed }), "seed"));
  if (OF_PROTOTYPES.includes(place.view) && place.method) {
    const names = contextOf(place).methodName;
    if (place.seed.methods.length > 1) {
      fields.push(select("method", place.seed.methods.map((each) => [each.name, names(each.name)]), place.method.name,
        (method) => change({ method, moment: place.moment }), "method"));
    }
    if (place.view !== "map" && place.method.moments.length > 1) {
      fields.push(select("prototypes", place.method.moments.map((each) => [each, MOMENTS[each]]), place.moment,
        (moment) => change({ method: place.method.name, moment }), "moment"));
    }
  }
  const focused = document.activeElement?.id;
  document.getElementById("choices").replaceChildren(...fields);
  if (fields.length && focused) document.getElementById(focused)?.focus();
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  if (!held) leave(held = whereabouts(content)); // of the last view that was whole
  let kept = arrive();
  const place = here(), context = contextOf(place), root = make("div");
  tabs(place);
  choices(place);
  const begun = leaving;
  const waiting = setTimeout(() => content.replaceChildren(make("p", { className: "quiet", text: "Loading ..." })), 150);
  leaving.signal.addEventListener("abort", () => clearTimeout(waiting));
  try {
    await VIEWS[place.view](root, context);
  } catch (error) {
    if (error.name === "AbortError") return;
    root.replaceChildren(make("h1", { text: "This cannot be shown" }), failure(error, show),
      make("p", {}, make("a", { href: address(place.view, { seed: place.seed.seed }), text: "The same view without these choices" })));
  }
  if (begun !== leaving) return;
  const page = place.parameters.page ?? "0";
  if (!kept && shown?.view === place.view) kept = { ...held, scroll: shown.page === page ? held.scroll : 0 };
  if (kept?.scroll) {
    await photosLoaded(root);
    if (begun !== leaving) return;
  }
  clearTimeout(waiting);
  content.replaceChildren(root);
  const title = root.querySelector("h1");
  document.title = `${title?.textContent || "explorer"} · tag2mask`;
  if (kept) restore(kept, content);
  else if (shown) scrollTo(0, 0);
  if (shown && shown.view !== place.view && document.activeElement === document.body) focusTitle(content); // readers of screens hear it
  else if (shown && title && shown.title !== title.textContent) say(title.textContent);
  shown = { view: place.view, page, title: title?.textContent };
  held = null;
  content.dataset.views = Number(content.dataset.views ?? 0) + 1; // so that one can wait for the next
}

async function start() {
  try {
    run = await ask("/api/run");
  } catch (error) {
    content.replaceChildren(make("h1", { text: "This run cannot be opened" }), failure(error, start));
    return;
  }
  document.getElementById("run").textContent = `${run.run} · ${run.classes.length} classes · ${run.seeds[0].photos} photos`;
  addEventListener("hashchange", show);
  await show();
  say("Loaded");
}

document.getElementById("choices").addEventListener("submit", (event) => event.preventDefault());
document.querySelector(".skip").addEventListener("click", (event) => { // the # is the address of the view
  event.preventDefault();
  content.focus();
});
start();
