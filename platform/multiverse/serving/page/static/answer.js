// The answer as a tree: text, and in it blocks whose branches stand side by side and grow at the same time.

import { duration, element } from "./dom.js";
import { replicaName } from "./replicas.js";

const FINISHES = {
  stop: "done",
  length: "cut at its limit",
  given_up: "given up: no budget left",
  timeout: "closed: it took too long",
  dropped: "dropped: time was up",
  "cut off": "cut off",
};

export class AnswerView {
  constructor(root) {
    this._root = root;
    this._bodies = new Map();
    this._items = new Map();
    this._cards = new Map();
  }

  clear() {
    this._root.replaceChildren();
    for (const map of [this._bodies, this._items, this._cards]) map.clear();
  }

  /** Show a change that a Run tells of. */
  change(run, lane, item) {
    if (lane === run.top && !this._bodies.has(lane)) this._bodies.set(lane, this._root);
    if (item === null) this._state(lane);
    else if (item.branches) this._block(lane, item);
    else this._text(lane, item);
  }

  _text(lane, item) {
    let shown = this._items.get(item);
    if (!shown) {
      shown = { node: document.createTextNode(""), length: 0 };
      this._items.set(item, shown);
      this._bodies.get(lane).append(element("p", { class: `text ${item.kind}` }, shown.node));
    }
    // White space waits for what follows it: at the end it would be a gap.
    const text = item.text.trimEnd();
    shown.node.appendData(text.slice(shown.length));
    shown.length = Math.max(shown.length, text.length);
  }

  _block(lane, block) {
    const known = this._items.get(block);
    if (known) {
      known.state.textContent = `joined after ${duration(block.joined - block.forked)}`;
      known.node.classList.add("joined");
      return;
    }
    const body = this._bodies.get(lane);
    body.querySelectorAll(":scope > .plan").forEach((plan) => plan.remove());
    const width = block.branches.length;
    const state = element("span", { class: "state" }, "running");
    const name = `Block ${block.id}: ${width} ${width === 1 ? "branch" : "branches"}`;
    const title = element("p", { class: "block-title" }, element("strong", {}, name), state);
    const grid = element("div", { class: "branches" }, ...block.branches.map((branch) => this._branch(branch)));
    const node = element("section", { class: "block", "aria-label": name }, title, grid);
    this._items.set(block, { node, state });
    body.append(node);
  }

  _branch(lane) {
    const state = element("span", { class: "state" }, "running");
    const where = element("span", { class: "replica" });
    const body = element("div", { class: "body" });
    const heading = element("p", { class: "branch-title" }, element("span", { class: "number" }, lane.label), lane.outline);
    const card = element(
      "article",
      { class: `branch running ${lane.hue}`, "aria-label": `Branch ${lane.label}: ${lane.outline}` },
      heading,
      body,
      element("p", { class: "branch-foot" }, state, where),
    );
    this._bodies.set(lane, body);
    this._cards.set(lane, { card, state, where });
    this._state(lane);
    return card;
  }

  _state(lane) {
    const shown = this._cards.get(lane);
    if (!shown) return;
    const { card, state, where } = shown;
    card.classList.toggle("running", lane.ended === null);
    card.classList.toggle("short", lane.ended !== null && lane.finish !== "stop");
    const tokens = lane.tokens === null ? "" : ` · ${lane.tokens} ${lane.tokens === 1 ? "token" : "tokens"}`;
    state.textContent = lane.ended === null ? "running" : `${FINISHES[lane.finish] ?? lane.finish}${tokens}`;
    if (lane.retried) state.textContent += " · moved";
    where.textContent = lane.replica ? `replica ${replicaName(lane.replica)}` : "";
    where.title = lane.replica;
  }
}
