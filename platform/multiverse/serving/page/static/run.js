// One request as it happens: chunks of the stream folded into a tree of text, blocks and branches, with times.
//
//   lane = the text of one place: the answer itself, or a branch
//     items: {text, kind} | block, in their order; kind: text, plan (outlines being written), conclusion
//   block = {id, forked, joined, branches: [lane ...]}
//
// Times are milliseconds since the server began. The answer's own text comes in the chunks' content while no top
// block is open; branches' text comes with the events, whose `place` says where they belong.

const TAGS = /(<\/?(?:Think|Parallel|Goal|Outline|Path|Conclusion)>)/;

export class Run {
  /** `changed(lane, item)` is called for each change, item null where it is the lane itself. */
  constructor(mode, changed) {
    this.mode = mode;
    this.top = newLane("", "", 0, "main");
    this.blocks = new Map();
    this.result = null;
    this.finish = null;
    this.fallbacks = [];
    this.running = true;
    this._changed = changed;
    this._openTop = 0;
    this._branches = 0;
    this._at = 0;
    this._seen = performance.now();
    this._firstSeen = null;
  }

  /** Now, by the server's clock as well as it is known. */
  get now() {
    if (!this.running) return this._at;
    return this._at + performance.now() - this._seen;
  }

  push(chunk) {
    const choice = chunk.choices[0];
    const told = chunk.parallel;
    if (told?.event) this._event(told);
    else if (told) this._end(told, choice.finish_reason);
    const content = choice?.delta.content;
    if (content && this._openTop === 0) {
      this._firstSeen ??= performance.now();
      this._text(this.top, content, this.now);
    }
  }

  /** No more comes. A lane that has not ended was cut off. */
  stop() {
    this._at = this.now;
    this.running = false;
    for (const lane of this.lanes()) {
      if (lane.ended === null) {
        lane.ended = this._at;
        lane.finish ??= this.finish ?? "cut off";
      }
      this._changed(lane, null);
    }
  }

  /** All lanes, outer ones before those inside them. */
  *lanes(lane = this.top) {
    yield lane;
    for (const item of lane.items) {
      if (item.branches) for (const branch of item.branches) yield* this.lanes(branch);
    }
  }

  _event(told) {
    this._told(told.at);
    const lane = this._lane(told.place);
    switch (told.event) {
      case "fork":
        return this._fork(lane, told);
      case "delta":
        return this._text(lane, told.delta, told.at);
      case "branch":
        Object.assign(lane, { ended: told.at, finish: told.finish_reason, tokens: told.tokens });
        return this._changed(lane, null);
      case "retry":
        lane.retried = true;
        return this._changed(lane, null);
      case "join": {
        const block = this.blocks.get(told.block);
        block.joined = told.at;
        if (told.place.length === 0) this._openTop -= 1;
        return this._changed(lane, block);
      }
      case "fallback":
        this.fallbacks.push(told.reason);
    }
  }

  /** The server's clock. Until it was first told, the way to the server and its queue seemed to be part of the time. */
  _told(at) {
    const seen = performance.now();
    if (this._at === 0 && this._firstSeen !== null) this.top.first = Math.max(0, at - (seen - this._firstSeen));
    this._at = at;
    this._seen = seen;
  }

  _fork(lane, { block: id, outlines, replicas = [], at }) {
    const branches = outlines.map((outline, index) => {
      const label = lane.label ? `${lane.label}.${index + 1}` : `${index + 1}`;
      return newLane(label, outline, at, `hue-${this._branches++ % 8}`, replicas[index] ?? "");
    });
    // The outlines stand over the branches from here on.
    lane.items = lane.items.filter((item) => item.kind !== "plan");
    const block = { id, forked: at, joined: null, branches };
    this.blocks.set(id, block);
    lane.items.push(block);
    lane.kind = "text";
    if (lane === this.top) this._openTop += 1;
    this._changed(lane, block);
  }

  /** Tags come in one piece each; they say what the text behind them is, and are not shown. */
  _text(lane, text, at) {
    lane.first ??= at;
    for (const piece of text.split(TAGS)) {
      if (piece === "<Goal>") lane.kind = "plan";
      else if (piece === "<Conclusion>") lane.kind = "conclusion";
      else if (piece === "</Goal>" || piece === "</Conclusion>") lane.kind = "text";
      else if (piece && !TAGS.test(piece)) this._append(lane, piece);
    }
  }

  _append(lane, text) {
    let item = lane.items.at(-1);
    if (item?.kind !== lane.kind) {
      text = text.trimStart();
      if (!text) return;
      item = { kind: lane.kind, text: "" };
      lane.items.push(item);
    }
    item.text += text;
    this._changed(lane, item);
  }

  _end(result, finish) {
    this._told(result.milliseconds);
    this.result = result;
    this.finish = finish;
    this.top.ended = this._at;
    this._settle(this.top, result.blocks);
  }

  /** Where branches ran in the end, and their tokens. */
  _settle(lane, blocks) {
    for (const told of blocks) {
      const block = this.blocks.get(told.id);
      told.branches.forEach((branch, index) => {
        const mine = block?.branches[index];
        if (!mine) return;
        Object.assign(mine, { replica: branch.replica ?? mine.replica, tokens: branch.tokens });
        this._settle(mine, branch.blocks);
      });
    }
  }

  _lane(place) {
    if (place.length === 0) return this.top;
    const [block, branch] = place.at(-1);
    return this.blocks.get(block).branches[branch - 1];
  }
}

/** hue: the class that gives it its colour. */
function newLane(label, outline, forked, hue, replica = "") {
  const times = { forked, first: null, ended: null };
  return { label, outline, hue, replica, ...times, finish: null, tokens: null, retried: false, kind: "text", items: [] };
}
