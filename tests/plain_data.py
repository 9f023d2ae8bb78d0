"""Strategies for whole configurations of plain data."""

from __future__ import annotations

from hypothesis import strategies as st

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8).filter(
    lambda text: not text.startswith("$")
)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | texts
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
opaque = st.dictionaries(texts, plain, max_size=4)
wholes = st.fixed_dictionaries(
    {},
    optional={
        "weather": opaque,
        "tools": st.lists(opaque, max_size=3),
        "memory": st.fixed_dictionaries({"backend_config": opaque}, optional={"enabled": st.booleans()}),
        "title": st.fixed_dictionaries({"max_words": st.integers(1, 20)}),
        "user_thread_mapping": st.fixed_dictionaries({}, optional={"type": st.just("memory"), "future": plain}),
    },
)
