// The block list, and how to train with it.

import { ask, failure, make, picture, say, send, tags, thumbnail } from "/page/parts.js";

export async function blocked(root, context) {
  const { run } = context;
  context.blocked(await ask("/api/blocked", {}, { signal: context.signal }));
  root.append(make("h1", { text: "Block list" }), make("p", { className: "lead", text:
    "Photos that show a class without being tagged with it. In the next training these pairs count as unknown: such a photo gives the class no " +
    "negative prototype and teaches it nothing, neither way. All its other tags stay." }));
  if (!run.blockable) {
    root.append(make("p", { className: "empty", text: `This run takes no block list: ${run.several_seeds}` }));
    return;
  }
  if (!run.blocked.length) {
    root.append(make("div", { className: "empty" }, make("p", { text: "Nothing is on the list. Tick a prototype that really shows its class." }),
      make("a", { className: "button", href: context.to("negatives"), text: "Prototypes" })));
    return;
  }
  const copy = make("button", { type: "button", className: "main", text: "Copy the command", onclick: async () => {
    try {
      await navigator.clipboard.writeText(run.command);
      copy.textContent = "Copied";
    } catch { // a browser may forbid it; then the text is marked, to be copied by hand
      getSelection().selectAllChildren(code);
      copy.textContent = "Press Ctrl-C to copy";
    }
    say(copy.textContent);
  } });
  const code = make("code", { className: "command", id: "command", text: run.command, tabIndex: 0 });
  const list = make("ul", { className: "cards" }, run.blocked.map((pair) => make("li", { className: "card" },
    make("a", { href: context.to("compare", { image: pair.image, class: pair.class }) }, picture(thumbnail(run.seeds[0].seed, pair.image), pair.id),
      make("div", { className: "text" }, make("p", { className: "name", text: pair.name }), make("p", { className: "small", text: pair.id }), tags(pair.tags))),
    make("div", { className: "tick" }, make("button", { type: "button", text: "Take off the list", "aria-label": `Take ${pair.id} off the list for ${pair.name}`, onclick: async (event) => {
      try {
        context.blocked(await send("/api/blocked", {}, JSON.stringify({ image: pair.image, class: pair.class, blocked: false })));
        root.replaceChildren();
        await blocked(root, context);
        document.getElementById("content").focus();
      } catch (error) {
        event.target.after(failure(error));
      }
    } })))));
  root.append(make("p", { text: `Train again with it; the list is ${run.file}:` }), code, copy, make("h2", { text: "On the list" }), list);
}
