// Any photo of the set, page by page.

import { ask, count, make, pager, picture, select, tags, thumbnail } from "/page/parts.js";

export async function photos(root, context) {
  const { run, parameters } = context, wanted = parameters.class === "none" || run.classes[parameters.class] ? parameters.class : "";
  const answer = await ask("/api/images", { seed: context.seed, class: wanted, page: parameters.page || 0 }, { signal: context.signal });
  const go = (more) => context.go("photos", { class: wanted, ...more });
  root.append(make("h1", { text: "Photos" }), make("div", { className: "bar" },
    select("show", [["", "every photo"], ["none", "photos without a tag"], ...run.classes.map((name, i) => [i, name])], wanted, (value) => go({ class: value }), "class"),
    make("span", { className: "quiet", id: "count", text: count(answer.all, "photo", "photos") })));
  if (!answer.images.length) {
    root.append(make("div", { className: "empty" }, make("p", { text: answer.all ? "There is no such page." : "No photo fits this choice." }),
      make("button", { type: "button", text: "Every photo", "data-key": "every photo", onclick: () => go({ class: "" }) })));
    return;
  }
  root.append(make("ul", { className: "cards thumbs" }, answer.images.map((each) => make("li", { className: "card" },
    make("a", { href: context.to("compare", { image: each.image, class: wanted === "none" ? "" : wanted, from: wanted }) },
      picture(thumbnail(context.seed, each.image), each.id),
      make("div", { className: "text" }, make("p", { className: "name small", text: each.id }), tags(each.tags)))))),
  pager(answer, (page) => go({ page })) ?? "");
}
