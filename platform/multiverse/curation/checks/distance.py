"""Edit distance."""


def edit_distance(one: str, other: str) -> int:
    """Characters to insert, delete or replace to make one text the other (Levenshtein).

    Bit-parallel over the shorter text (Myers 1999, Hyyrö 2003): ten operations on integers per character of the longer.
    """
    pattern, text = sorted((one, other), key=len)
    if not pattern:
        return len(text)
    full = (1 << len(pattern)) - 1
    last = 1 << (len(pattern) - 1)
    matches: dict[str, int] = {}
    for index, character in enumerate(pattern):
        matches[character] = matches.get(character, 0) | 1 << index
    # Where the distance grows, and where it falls, from one row of the table to the next.
    grows, falls, distance = full, 0, len(pattern)
    for character in text:
        match = matches.get(character, 0)
        diagonal = (((match & grows) + grows) ^ grows) | match | falls
        right_grows = falls | (full & ~(diagonal | grows))
        right_falls = grows & diagonal
        if right_grows & last:
            distance += 1
        elif right_falls & last:
            distance -= 1
        right_grows = (right_grows << 1 | 1) & full
        right_falls = (right_falls << 1) & full
        grows = right_falls | (full & ~(diagonal | right_grows))
        falls = right_grows & diagonal
    return distance


def normalized_distance(one: str, other: str) -> float:
    """`edit_distance` by the length of the longer text: 0 for equal texts, 1 for texts with nothing in common."""
    longer = max(len(one), len(other))
    return edit_distance(one, other) / longer if longer else 0.0
