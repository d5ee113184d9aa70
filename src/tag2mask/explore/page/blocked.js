// The block list, and how to train with it.

import { ask, failure, make, picture, say, send, tags, thumbnail } from "/page/parts.js";
import { focusTitle } from "/page/places.js";

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
  if (run.blocked_fault) {
    root.append(make("div", { className: "error", role: "alert" }, make("p", { text: `The list cannot be read: ${run.blocked_fault}` }),
      make("p", { text: `Correct or delete ${run.file}; until then nothing can be ticked, and nothing is shown as blocked.` }),
      make("button", { type: "button", text: "Read it again", "data-key": "read again", onclick: context.again })));
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
  let wrong = null;
  const list = make("ul", { className: "cards" }, run.blocked.map((pair, place) => make("li", { className: "card" },
    make("a", { href: context.to("compare", { image: pair.image, class: pair.class }) }, picture(thumbnail(run.seeds[0].seed, pair.image), pair.id),
      make("div", { className: "text" }, make("p", { className: "name", text: pair.name }), make("p", { className: "small", text: pair.id }), tags(pair.tags))),
    make("div", { className: "tick" }, make("button", { type: "button", text: "Take off the list", "data-key": `off ${pair.image} ${pair.class}`, "aria-label": `Take ${pair.id} off the list for ${pair.name}`, onclick: async (event) => {
      wrong?.remove();
      try {
        context.blocked(await send("/api/blocked", {}, JSON.stringify({ image: pair.image, class: pair.class, blocked: false })));
        root.replaceChildren();
        await blocked(root, context);
        const left = root.querySelectorAll(".card button");
        if (left.length) left[Math.min(place, left.length - 1)].focus();
        else focusTitle(root);
        say(`${pair.id} is off the block list for ${pair.name}`);
      } catch (error) {
        wrong?.remove(); // of a press in between
        wrong = failure(error);
        if (event.target.isConnected) event.target.after(wrong);
        else root.append(wrong); // the list is off the page, and could not be asked for again
      }
    } })))));
  root.append(make("p", { text: `Train again with it; the list is ${run.file}:` }), code, copy, make("h2", { text: "On the list" }), list);
}
