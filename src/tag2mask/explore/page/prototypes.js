// Classes with what they are confused with; the negative prototypes of a class; one of them with what it suppresses.

import { ask, bars, chance, classNumber, count, counted, large, make, number, pager, percent, picture, select, tags, thumbnail, tick } from "/page/parts.js";
import { paintRegion, paintSuppressed } from "/page/paint.js";

const MOST_BARS = 4, MOST_NAMED = 10;

function none(root, context) {
  root.append(make("h1", { text: "No prototypes" }), make("div", { className: "empty" },
    make("p", { text: context.trained.length
      ? `This run has trained ${context.trained.join(", ")}, and none of them keeps prototypes. The methods fpr, paper, rc, pr and training_free do.`
      : "Nothing is trained in this run yet for this seed." }),
    make("p", { className: "small", text: "Photos can be looked through all the same." }),
    make("a", { className: "button", href: context.to("photos"), text: "Photos" })));
}

function suppresses(row) {
  if (row.pixels === null) return "not counted yet";
  return row.pixels ? `suppresses ${count(row.pixels, "map pixel", "map pixels")} in ${count(row.photos, "photo", "photos")}` : "suppresses nothing";
}

function notKept(name, found, answer) { // why a class has no negative
  if (!found) return `No photo without the tag ${name} makes its map fire, so there is nothing that it is confused with.`;
  const why = answer.trimmed_by_support ? "fewer than a quarter of those that were ranked have their like in photos of other things" : "the settings of this method leave them out";
  return `${number(found)} found, none kept: ${why}.`;
}

function remarks(root, answer, context, view, more = {}) { // what has to be known to read the numbers below
  const { unreadable } = answer, left = unreadable.length - MOST_NAMED;
  if (unreadable.length) {
    root.append(make("p", { className: "small", id: "unreadable", text: `Left out, as ${unreadable.length === 1 ? "it" : "they"} cannot be read: ` +
      `${unreadable.slice(0, MOST_NAMED).join(", ")}${left > 0 ? ` and ${number(left)} more` : ""}.` }));
  }
  if (context.moment === "last" && context.method.moments.includes("first")) {
    root.append(make("p", { className: "small", id: "learnt" }, "After training few pixels still need suppressing, as it has learnt from these prototypes; what it began with is seen ",
      make("a", { href: context.to(view, { ...more, moment: "first" }), text: "before rectification" }), "."));
  }
}

const MAP_PIXEL = "A map pixel is one cell of a class map, whose grid is coarser than the photo.";

export async function classes(root, context) {
  if (!context.method) return none(root, context);
  const answer = await ask("/api/classes", context.prototypes(), { signal: context.signal });
  const holder = make("div");
  root.append(make("h1", { text: "What is confused with what" }), make("p", { className: "lead", text:
    "The map of a class also fires in photos without it. The strongest of those regions are its negative prototypes: by them one sees what " +
    `the classifier takes for the class. A prototype that really shows the class points at a missing tag. ${MAP_PIXEL}` }), holder);
  remarks(root, answer, context, "classes");
  if (!answer.counted) counted(context, holder, context.again);
  const rows = answer.classes.map((row) => {
    const most = Math.max(1, ...row.tags.map((tag) => tag.count));
    const parts = [make("div", {}, make("h2", {}, make("a", { href: context.to("negatives", { class: row.class }), text: row.name })),
      make("p", { className: "small", text: `${count(row.photos, "photo", "photos")} tagged, ${count(row.negatives, "negative prototype", "negative prototypes")}` }),
      row.pixels === null ? null : make("p", { className: "small", text: row.pixels
        ? `${count(row.pixels, "map pixel", "map pixels")} suppressed in ${count(row.in_photos, "photo", "photos")}` : "nothing suppressed" }))];
    if (!row.negatives) {
      parts.push(make("p", { className: "quiet", text: notKept(row.name, row.found, answer) }));
    } else {
      parts.push(make("div", {}, make("h3", { text: "tags of the photos that lend its negatives" }),
        bars(row.tags.slice(0, MOST_BARS).map((tag) => [tag.name || "no tag", tag.count, number(tag.count)]), most, row.tags_in_all - MOST_BARS)));
      if (row.shown.length) {
        parts.push(make("div", {}, make("h3", { text: "what those regions show, by the masks of the data" }),
          bars(row.shown.slice(0, MOST_BARS).map((what) => [what.name, what.share, percent(what.share)]), 1, row.shown_in_all - MOST_BARS)));
      }
    }
    return make("li", {}, parts);
  });
  root.append(make("ul", { className: "classes" }, rows));
}

const SORTS = { rank: "most confident first", pixels: "most suppressed pixels first", photos: "most photos first" };

const altOf = (row, name) => (row.region ? `${row.id}, lit where ${name} is activated` : row.id); // before the pass nothing is lit

function region(row, context) {
  return picture(thumbnail(context.seed, row.image), altOf(row, context.run.classes[row.class]),
    row.region ? (canvas) => paintRegion(canvas, row.region) : null);
}

function card(row, context) {
  const name = context.run.classes[row.class];
  return make("li", { className: row.blocked ? "card blocked" : "card" },
    make("a", { href: context.to("negative", { class: row.class, rank: row.rank }) }, region(row, context),
      make("div", { className: "text" },
        make("p", {}, make("span", { className: "name", text: `#${row.rank + 1}` }), row.score === null ? "" : ` probability of ${name} ${chance(row.score)}`),
        tags(row.tags),
        row.shown.length ? make("p", { className: "small", text: `shows ${row.shown.map((w) => `${w.name} ${percent(w.share)}`).join(", ")}` }) : null,
        make("p", { className: "small", text: suppresses(row) }))),
    tick(context, row, name));
}

export async function negatives(root, context) {
  if (!context.method) return none(root, context);
  const c = classNumber(context), name = context.run.classes[c];
  const answer = await ask("/api/negatives", { ...context.prototypes(), class: c }, { signal: context.signal });
  const holder = make("div"), list = make("ul", { className: "cards" });
  let sort = context.parameters.sort in SORTS ? context.parameters.sort : "rank";
  const fill = () => {
    const rows = [...answer.prototypes];
    if (sort !== "rank") rows.sort((a, b) => (b[sort] ?? 0) - (a[sort] ?? 0) || a.rank - b.rank);
    list.replaceChildren(...rows.map((row) => card(row, context)));
  };
  root.append(make("h1", { text: `What is taken for ${name}` }), make("p", { className: "lead", text:
    `Photos without the tag ${name} in which its map fires most surely${answer.counted ? ", lit where it does" : ""}: its negative prototypes. Open one to see what it ` +
    `suppresses. If a photo really shows ${name}, its tag is missing: tick it, and the next training leaves that photo out of ${name}. ${MAP_PIXEL}` }),
  make("div", { className: "bar" },
    select("class", context.run.classes.map((text, i) => [i, text]), c, (value) => context.go("negatives", { class: value, sort }), "class"),
    select("order", Object.entries(SORTS), sort, (value) => { sort = value; context.keep({ sort }); fill(); }, "sort")), holder);
  if (!answer.prototypes.length) {
    root.append(make("p", { className: "empty", text: `${name} has no negative prototype. ${notKept(name, answer.found, answer)}` }));
    return;
  }
  if (!answer.counted) counted(context, holder, context.again);
  remarks(root, answer, context, "negatives", { class: c, sort });
  if (context.run.blocked_fault) root.append(make("p", { className: "small", text: `Nothing can be ticked here: ${context.run.blocked_fault}` }));
  if (!context.run.blockable) root.append(make("p", { className: "small", text: `Nothing can be ticked here: ${context.run.several_seeds}` }));
  fill();
  root.append(list);
}

export async function negative(root, context) {
  if (!context.method) return none(root, context);
  const c = classNumber(context), rank = Number(context.parameters.rank) || 0, name = context.run.classes[c];
  const answer = await ask("/api/uses", { ...context.prototypes(), class: c, rank, page: context.parameters.page || 0 }, { signal: context.signal });
  const row = answer.prototype, holder = make("div"), at = answer.ranks.indexOf(rank);
  const beside = (text, key, other) => make("button", { type: "button", text, "data-key": key, disabled: other === undefined, onclick: () => context.go("negative", { class: c, rank: other }) });
  const photo = picture(large(context.seed, row.image), altOf(row, name), row.region ? (canvas) => paintRegion(canvas, row.region) : null);
  root.append(
    make("h1", { text: `Negative ${rank + 1} of ${name}` }),
    make("div", { className: "bar" }, make("a", { href: context.to("negatives", { class: c }), text: `All negatives of ${name}` }),
      beside("Previous negative", "previous negative", answer.ranks[at - 1]), beside("Next negative", "next negative", answer.ranks[at + 1])),
    make("div", { className: "two" }, make("div", {}, photo), make("div", { className: "facts" },
      make("p", {}, make("b", { text: row.id })), make("p", {}, "tagged ", tags(row.tags)),
      row.score === null ? null : make("p", { text: `The classifier gives ${name} a probability of ${chance(row.score)} here.` }),
      row.shown.length ? make("p", { text: `The region shows ${row.shown.map((w) => `${w.name} ${percent(w.share)}`).join(", ")}, by the masks of the data.` }) : null,
      row.score !== null && !row.region ? make("p", { id: "dark", text: `With the weights after training its map of ${name} no longer fires here.` }) : null,
      make("p", { text: `It ${suppresses(row)}.` }), tick(context, row, name),
      make("p", {}, make("a", { href: context.to("compare", { image: row.image, class: c }), text: "Compare the maps of this photo" })))),
    make("h2", { text: "Where it suppresses" }), holder);
  remarks(root, answer, context, "negatives", { class: c });
  if (!answer.counted) {
    counted(context, holder, context.again);
    return;
  }
  if (!answer.all) {
    root.append(make("p", { className: "empty", text: `In no photo tagged ${name} is a suppressed pixel nearest to this prototype.` }));
    return;
  }
  root.append(
    make("ul", { className: "legend" }, make("li", {}, make("span", { className: "key own" }), `suppressed, nearest to this prototype`),
      make("li", {}, make("span", { className: "key other" }), "suppressed, nearest to another negative")),
    make("ul", { className: "cards" }, answer.images.map((each) => make("li", { className: "card" },
      make("a", { href: context.to("compare", { image: each.image, class: c }) },
        picture(thumbnail(context.seed, each.image), `${each.id}, suppressed pixels of ${name} painted`, (canvas) => paintSuppressed(canvas, each.grid)),
        make("div", { className: "text" }, make("p", { className: "name", text: each.id }), tags(each.tags),
          make("p", { className: "small", text: count(each.pixels, "map pixel", "map pixels") })))))),
    pager(answer, (page) => context.go("negative", { class: c, rank, page })) ?? "");
}
