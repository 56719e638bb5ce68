"""What the pictures show."""

from docs.drawing.shapes import BLUE, GREEN, GREY, ORANGE, SAND, VIOLET, Picture


def pictures() -> dict[str, str]:
    """By name of the file in docs/."""
    return {
        "architecture-request.svg": request(),
        "architecture-fork-join.svg": fork_join(),
        "architecture-model.svg": model(),
    }


def request() -> str:
    """Numbers are those of the list beside it."""
    made = Picture(920, 430, "The path of a request: router, engine replicas, reducer")
    made.box(20, 150, 110, 60, ["Client", "OpenAI's API"])
    made.box(200, 30, 230, 340, fill=BLUE).text(315, 52, "Router", anchor="middle", bold=True)
    made.box(220, 66, 190, 58, ["1  Gate", "key, limits, queue"], "#ffffff")
    made.box(220, 150, 190, 58, ["2  Sequencer", "one per answer"], "#ffffff")
    made.box(220, 234, 190, 58, ["3  Fleet", "which replica runs what"], "#ffffff")
    made.box(220, 318, 190, 40, ["8  Answer, in reading order"], "#ffffff")
    made.arrow((130, 165), (220, 95)).arrow((220, 338), (75, 338), (75, 210))
    made.arrow((315, 124), (315, 150)).arrow((315, 208), (315, 234), both=True)
    made.text(80, 325, "stream", colour=GREY)
    for number, (y, lines) in enumerate(
        [(30, ["prefix, branch 1, text after the join"]), (200, ["branches 2 and 3"])], start=1
    ):
        made.box(590, y, 300, 120, fill=GREEN)
        made.text(740, y + 22, f"Engine replica {number}: vLLM", anchor="middle", bold=True)
        made.box(610, y + 36, 260, 28, lines, "#ffffff")
        made.box(610, y + 76, 125, 30, ["KV cache, leases"], VIOLET)
        made.box(745, y + 76, 125, 30, ["arena, exports"], VIOLET)
    made.arrow((410, 242), (470, 242), (470, 90), (590, 90), both=True).text(478, 84, "4  segments,")
    made.text(478, 106, "tokens back")
    made.arrow((410, 262), (590, 262), both=True).text(478, 256, "5  branches")
    made.arrow((870, 291), (905, 291), (905, 168), (672, 168), (672, 136)).text(690, 184, "7  KV, by reference")
    made.box(590, 350, 300, 60, ["Reducer", "barriers of open blocks, join plans"], ORANGE)
    made.arrow((410, 282), (470, 282), (470, 380), (590, 380), both=True).text(476, 372, "6  ends; plan")
    made.arrow((740, 350), (740, 320), dashed=True).text(750, 340, "where is it?", colour=GREY)
    return made.svg()


def fork_join() -> str:
    """Where the KV of a branch and of the text after the join comes from, and at which positions it stands."""
    made = Picture(920, 400, "Fork and join: KV cache blocks and positions of a block with two branches")
    made.text(20, 30, "At the fork", bold=True).text(20, 210, "At the join", bold=True)
    for column, name in enumerate(["block 0, full", "block 1, full", "tail"]):
        width = 70 if name == "tail" else 130
        made.box(170 + 130 * column, 14, width, 30, [name], BLUE)
    made.text(20, 48, "prefix, leased", colour=GREY).text(510, 34, "ends with </Goal>, position 19", colour=GREY)
    for number, y in [(1, 80), (2, 130)]:
        made.text(20, y + 20, f"branch {number}")
        made.box(170, y, 130, 30, ["shared"], "#ffffff").box(300, y, 130, 30, ["shared"], "#ffffff")
        made.box(430, y, 70, 30, ["copied"], BLUE)
        text = {1: "\\n <Path> \\n 1: a b </Path>", 2: "\\n <Path> \\n 2: c </Path>"}[number]
        made.box(500, y, 210 if number == 1 else 190, 30, [text], GREEN if number == 1 else ORANGE)
        made.text(722, y + 20, f"positions 20 to {27 - number}", colour=GREY)
    made.arrow((465, 44), (465, 80)).text(475, 66, "tail: copied from the lease, never computed again", colour=GREY)
    made.text(20, 270, "tokens and their KV")
    spans = [
        (170, 200, "prefix", BLUE),
        (370, 160, "branch 1", GREEN),
        (530, 150, "branch 2", ORANGE),
        (680, 60, "\\n", SAND),
        (740, 150, "<Conclusion> ...", SAND),
    ]
    for x, width, name, fill in spans:
        made.box(x, 250, width, 30, [name], fill)
    made.text(20, 312, "positions")
    for (x, width, *_), positions in zip(spans, ["0 ... 19", "20 ... 26", "20 ... 25", "27", "28 ..."], strict=True):
        made.text(x + width / 2, 312, positions, anchor="middle")
    made.text(20, 344, "from")
    for (x, width, *_), source in zip(
        spans, ["lease of branch 1", "lease of branch 1", "lease of branch 2", "computed", ""], strict=True
    ):
        made.text(x + width / 2, 344, source, anchor="middle", colour=GREY)
    made.text(
        170, 380, "Both branches begin at 20, behind the fork. The join stands at the largest end + 1 and sees all."
    )
    made.arrow((834, 95), (885, 95), (885, 226), (450, 226), (450, 250))
    made.arrow((834, 145), (865, 145), (865, 206), (605, 206), (605, 250))
    made.text(616, 198, "token by token, at the positions it had", colour=GREY)
    return made.svg()


def model() -> str:
    """From chains to a model that answers, and what watches it."""
    made = Picture(920, 330, "From chains to a served model: curation, training, evaluation, serving, metrics")
    steps = [
        (20, ["Curate", "Ray Data actors, an LLM", "jobs/curate.py"], BLUE),
        (250, ["Train", "Ray Train workers", "jobs/train.py"], GREEN),
        (480, ["Serve", "Ray Serve: router,", "replicas, reducer"], ORANGE),
        (710, ["Evaluate", "suites, speed", "multiverse evaluate, bench"], VIOLET),
    ]
    for x, lines, fill in steps:
        made.box(x, 110, 190, 80, lines, fill)
    for x in (210, 440, 670):
        made.arrow((x, 150), (x + 40, 150))
    files = [(80, "chains"), (230, "structured rows"), (460, "checkpoints, model"), (805, "answers, report")]
    made.box(20, 250, 880, 60)
    made.text(30, 270, "A folder that all nodes see, or S3 (reports: a folder)", bold=True)
    for x, name in files:
        made.text(x, 296, name, anchor="middle")
    made.arrow((80, 250), (80, 190)).arrow((190, 190), (230, 250)).arrow((250, 250), (290, 190))
    made.arrow((420, 190), (460, 250)).arrow((480, 250), (520, 190)).arrow((805, 190), (805, 250))
    metrics = ["Metrics of every process, through Ray's agent on its node", "Prometheus, Grafana, alerts"]
    made.box(20, 20, 650, 50, metrics)
    for x in (115, 345, 575):
        made.arrow((x, 110), (x, 70), dashed=True)
    made.text(800, 100, "by HTTP or in its own process", anchor="middle", colour=GREY)
    return made.svg()
