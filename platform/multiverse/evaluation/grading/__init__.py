"""Is an answer right? What it is, is found by rules that are named; whether it equals the reference, by math-verify."""
