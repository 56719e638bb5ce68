"""Reports as single pages."""

import base64

from multiverse.evaluation.pages import page

TEXT = """# Speed & more

| a | b |
| --- | --- |
| 1 | <script>alert(1)</script> |

![Curve](curve.png)
"""


def test_the_page_holds_its_pictures_and_tables_and_no_html_of_the_text() -> None:
    found = page(TEXT, {"curve.png": b"\x89PNG"})
    assert f'src="data:image/png;base64,{base64.b64encode(bytes([0x89, *b"PNG"])).decode()}"' in found
    assert "<td>1</td>" in found and "<title>Speed &amp; more</title>" in found
    assert "<script>" not in found and "curve.png" not in found
