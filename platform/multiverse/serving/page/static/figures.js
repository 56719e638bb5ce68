// What a finished request came to: figures, times as a table, and the runs so far beside each other.

import { duration, element, table } from "./dom.js";
import { replicaName } from "./replicas.js";

const MODES = { auto: "auto", force: "parallel", off: "sequential" };

export function showFigures(list, run) {
  const { tokens, critical_path: path, x, milliseconds, speedup, fallbacks } = run.result;
  const figures = [
    ["Tokens", `${tokens}`, "of all branches together"],
    ["Critical path", `${path}`, "positions: of each block the longest branch"],
    ["Parallelism", `${x.toFixed(2)}×`, "tokens per position of the critical path"],
    ["Time", duration(milliseconds), `${(tokens / (milliseconds / 1000)).toFixed(0)} tokens per second`],
    ["Speed-up", ...gained(run.mode, speedup)],
  ];
  if (fallbacks.length) figures.push(["Fell back", `${fallbacks.length}×`, fallbacks.join(", ")]);
  list.replaceChildren(
    ...figures.map(([name, value, note]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value), element("dd", { class: "note" }, note)),
    ),
  );
}

export function showTimes(node, run) {
  const joined = new Map([...run.blocks.values()].flatMap((block) => block.branches.map((lane) => [lane, block])));
  const rows = [...run.lanes()]
    .filter((lane) => lane !== run.top)
    .map((lane) => [
      `${joined.get(lane).id}`,
      lane.label,
      lane.outline,
      lane.replica ? `${replicaName(lane.replica)} (${lane.replica})` : "the only one",
      duration(lane.forked),
      lane.first === null ? "–" : duration(lane.first),
      lane.ended === null ? "–" : duration(lane.ended),
      joined.get(lane).joined === null ? "–" : duration(joined.get(lane).joined),
      lane.tokens === null ? "–" : `${lane.tokens}`,
    ]);
  const head = ["Block", "Branch", "Task", "Replica", "Fork", "First text", "End", "Join", "Tokens"];
  node.replaceChildren(...table("Branches, in milliseconds or seconds from the start", head, rows));
}

export class History {
  constructor(node) {
    this._node = node;
    this._rows = [];
  }

  add(run, prompt) {
    const { tokens, critical_path: path, x, milliseconds, speedup } = run.result;
    this._rows.push([
      MODES[run.mode],
      prompt.length > 48 ? `${prompt.slice(0, 47)}…` : prompt,
      `${tokens}`,
      `${path}`,
      `${x.toFixed(2)}×`,
      duration(milliseconds),
      `${(tokens / (milliseconds / 1000)).toFixed(0)}`,
      speedup ? `${speedup.measured.toFixed(2)}×` : "–",
    ]);
    const head = ["Mode", "Prompt", "Tokens", "Critical path", "Parallelism", "Time", "Tokens/s", "Speed-up"];
    this._node.replaceChildren(...table("Newest last", head, this._rows));
    return this._rows.length;
  }
}

function gained(mode, speedup) {
  if (!speedup) return ["–", "not known yet: the server has measured too few steps"];
  const { measured, milliseconds, sequential_milliseconds: sequential } = speedup;
  const note = `${duration(milliseconds)} after the first token; one after the other ${duration(sequential)}`;
  return [`${measured.toFixed(2)}×`, mode === "off" ? `${note}, by the steps' mean time` : `${note}, at the measured rate`];
}
