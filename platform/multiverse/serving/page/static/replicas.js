// Names of replicas are long and alike: on the page they are 1, 2, 3 in the order in which they were first seen.

const numbers = new Map();

/** "" stays "": a server with one engine names none. */
export function replicaName(name) {
  if (!name) return "";
  if (!numbers.has(name)) numbers.set(name, numbers.size + 1);
  return `${numbers.get(name)}`;
}
