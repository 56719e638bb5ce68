class GrammarError(ValueError): pass
def parse(text): raise GrammarError(text)
