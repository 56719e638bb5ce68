// Prompts that the built-in model answers well enough to see what it does. None of them was trained on.

export const EXAMPLES = [
  { label: "Four tips", prompt: "List four tips for waking up early. One sentence for each." },
  {
    label: "Three lists",
    prompt: "Put each list in order, smallest first: A: 37 99 19; B: 25 54 65; C: 38 44 23.",
  },
  {
    label: "Blocks in blocks",
    prompt: "Amy scored 4 7 2 and 1 8 3. Tom scored 5 2 6 and 9 1 4. For each, add up the best of each round.",
  },
  {
    label: "One step after the other",
    prompt:
      "From January go 4 months back, then 3 months back, then 2 months back, then 3 months forward. What comes then?",
  },
];
