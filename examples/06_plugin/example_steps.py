"""Steps written as functions, for workers of a team's own.

pip install examples/06_plugin    into the image of those workers alone; then there:

    esb worker orchestration --queue texts

The API and the other workers need no code of it: the worker announces what it brings when it starts.
"""

from __future__ import annotations

from collections import Counter

from esb_workers.orchestration.functions import StepContext, StepError, step


@step("count-words", queue="texts", timeout=120)
def count_words(text: str, most: int = 3, *, context: StepContext) -> dict[str, object]:
    """`{"type": "count-words", "config": {"text": "${letter}", "most": 2}}`: puts `words` and `common` into the context.

    The parameters are the step's config, and their types are checked; what it answers is the step's output, merged into
    the context like a service's answer, or put at `resultPath`.
    """
    words = text.lower().split()
    if not words:
        raise StepError("EmptyText", f"nothing to count in {context.path}")  # `catch` can name it; not tried again
    return {"words": len(words), "common": [word for word, _ in Counter(words).most_common(most)]}
