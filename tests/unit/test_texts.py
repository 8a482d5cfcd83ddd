"""Texts of tables as params: the same text again, and none that a page would run."""

from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain_workflow.texts import shield, unshield

texts = st.text() | st.sampled_from(
    ["</script><script>alert(1)</script>", "<!--", "a & b", "\\u003c"]
)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50)
@given(values)
def test_a_value_comes_back_and_its_text_has_no_sign_of_a_page(value):
    shielded = shield(value)
    assert unshield(shielded) == value
    assert not set("<>&") & set(shielded)
    assert shielded.isascii()
