"""Rules between settings that the types cannot say."""


def check(run):
    return []
