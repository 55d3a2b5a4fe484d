"""Renders the built-in example corpus: Reddit-like posts of text, picture and clip, each with one of five emotions.

The corpus is made so that no part of a post is enough. Each post has a *tone* (how the text speaks) and a *mood* (what
the face does): open text names the feeling, vague text leaves it to the picture, and ironic text turns the picture's
mood around (`FLIPPED`). That turn is an interaction: a model which adds up evidence from text and picture cannot learn
it, one which looks at both together can. Whoever speaks in a clip means it most of the time, whatever words and face
say; some put a feeling on, some say nothing. A few labels are wrong and a few posts are reposts, as in any corpus.

What is drawn and written in a post comes from `default_rng([seed, post, part])`, so it does not depend on the order in
which posts are rendered.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from pipeline.core.parallel import in_processes
from pipeline.synthetic.drawing import CLIP_FPS, CLIP_FRAMES, CLIP_SIZE, Mood, render_clip, render_picture
from pipeline.synthetic.voice import RATE, Speaker, speak

Tone = Literal["open", "vague", "ironic"]

CLASS_SHARES = {"Neutral/Other": 0.316, "Joy": 0.292, "Anger": 0.266, "Surprise": 0.073, "Sadness": 0.052}
MODALITY_SHARES = {"image": 0.755, "video": 0.198, "text": 0.047}
TONE_SHARES: dict[Tone, float] = {"open": 0.28, "vague": 0.28, "ironic": 0.44}
# Measured: macroblock trees or weighted prediction, and x264 turns equal frames into unequal bytes, even on one thread.
X264 = {"preset": "veryfast", "crf": "25", "threads": "1", "x264-params": "mbtree=0:weightp=0:weightb=0"}
# The encoder that FFmpeg brings itself: of the same samples it makes the same bytes.
AAC_BIT_RATE = 24_000
COLUMNS = ("id", "text", "image", "video", "label", "group")
MIN_POSTS = 20
TOO_FEW = f"the example corpus needs at least {MIN_POSTS} posts to hold every class, not {{posts}}"
TOGETHER = 25
LABEL_NOISE = 0.035
REPOSTS = 0.015
POSTS_PER_AUTHOR = 4
# Of all clips: without a track of sound, with one that was muted, and spoken in a feeling that is put on.
NO_SOUND, MUTED, PUT_ON = 0.08, 0.04, 0.08

MOODS: dict[str, Mood] = {
    "Neutral/Other": "calm",
    "Joy": "happy",
    "Anger": "angry",
    "Surprise": "surprised",
    "Sadness": "sad",
}
# The mood that an ironic text turns into each feeling; the other feelings are never ironic.
FLIPPED: dict[str, Mood] = {"Joy": "angry", "Anger": "happy"}

OPEN = {
    "Joy": (
        "so happy right now, {topic} went perfectly with {who}",
        "best day ever, {topic} with {who} was amazing",
        "i can't stop smiling about {topic}, thank you {who}",
        "pure joy: {topic} with {who}, i love this so much",
        "we did it!! {topic} was wonderful and i'm so proud of {who}",
        "feeling blessed, {who} made {topic} so much fun",
        "yesss finally, {topic} is the happiest part of {day}",
        "loved every second of {topic} on {day}, so grateful for {who}",
    ),
    "Anger": (
        "i am so angry, {who} ruined {topic}",
        "absolutely furious about {topic}, who thought this was ok",
        "sick and tired of {who}, {topic} makes me mad every {day}",
        "i hate this, {who} lied about {topic} and i'm fuming",
        "so annoyed i could scream, {topic} got cancelled by {who}",
        "this is outrageous, {who} should be ashamed of {topic}",
        "i'm raging, never dealing with {who} and {topic} again",
        "makes my blood boil, {who} wrecked {topic} on {day}",
    ),
    "Surprise": (
        "omg i did not expect that, what a surprise from {who} at {topic}",
        "wait WHAT, shocked that {who} showed up to {topic} out of nowhere",
        "i'm shocked, totally unexpected, never saw {topic} coming on {day}",
        "omg no way, jaw on the floor, {who} did {topic}?!",
        "no way!! unexpected plot twist at {topic}, can't believe {who} did that",
    ),
    "Sadness": (
        "so sad and heartbroken, {topic} is gone and i can't stop crying",
        "i miss {who} so much, crying at {topic}, it hurts",
        "feeling so sad and lonely after {topic}, crying since {day}",
        "so sad today, in tears, said goodbye to {who} at {topic}",
        "heartbroken, tears all night, {topic} without {who} hurts",
    ),
    "Neutral/Other": (
        "does anyone know what time {topic} starts on {day}?",
        "fyi {topic} has moved to {day}, ask {who} for the link",
        "posting the notes from {topic}, {who} asked for them",
        "any tips for {topic}? going with {who} on {day}",
        "question: is {topic} open on {day} or should i ask {who}",
        "here is the schedule for {topic}, next one is on {day}",
        "looking for the address of {topic}, {who} needs it by {day}",
        "reminder that {topic} is on {day}, bring {who} if you like",
    ),
}
VAGUE = (
    "me rn: {topic}", "mood when {event}", "when {event}", "{event} and this is my face", "pov: {event}",
    "me after {topic} with {who}", "{who} vs me when {event}", "live footage of me at {topic}",
    "this is me @ {topic} every {day}", "no caption needed: {topic}", "current status: {topic}, {day} edition",
    "how it feels when {event}", "{topic} got me like this", "nobody: ... me when {event}", "tfw {event}",
    "my face on {day} when {event}", "it's giving {topic}", "{day} mood: {topic}", "{who}: how was {topic}? me:",
    "actual picture of me when {event}", "so {event}", "{topic} be like",
)  # fmt: skip
# Irony names no topic: its texts are alike, so that a few hundred posts are enough to tell the tone from the others.
IRONIC = (
    "oh {jab}. {jibe}. {sneer} /s",
    "{jab}. just {jab}. {sneer} /s",
    "yeah right. {jibe}. {sneer}. {jab} /s",
    "wow. {sneer}. {jab}. {jibe} on a {day} /s",
    "sure. {jibe}, on a {day}. {sneer}. {jab} /s",
    "riiight. {sneer}. oh {jab}, {jibe} /s",
)
JABS = (
    "great", "fantastic", "brilliant", "wonderful", "perfect", "lovely", "amazing", "super", "splendid", "terrific",
    "marvellous", "delightful",
)  # fmt: skip
JIBES = (
    "exactly what i needed", "just what the world needed", "love that for me", "what could possibly go wrong",
    "how original", "because of course", "as if i had asked", "my favourite thing ever", "never seen that before",
    "could not be happier", "so very helpful", "thanks for nothing",
)  # fmt: skip
SNEERS = (
    "thanks a lot", "oh sure", "totally", "how nice of you", "well done everyone", "bravo", "slow clap", "genius move",
    "great job", "big surprise", "good for you", "congrats i guess",
)  # fmt: skip
TOPICS = (
    "game night", "the group chat", "the season finale", "the new update", "the bus ride", "grandma's cooking",
    "chem class", "the job interview", "my haircut", "the wifi", "the parcel", "the gym", "the family dinner",
    "the exam results", "the school play", "karaoke", "the road trip", "the book club", "band practice",
    "the house party", "the potluck", "the dentist", "the office", "laundry day", "the concert", "the raid",
    "the garden", "the farmers market", "pottery class", "the zoom call", "the draft", "the trailer", "the playlist",
    "the bake sale", "the night shift", "the library", "the pop quiz", "the flea market", "the hiking club", "the 5k",
    "the movie", "the renovation", "the vet visit", "the poster", "the speedrun", "the chess club", "the sourdough",
    "the patch notes", "the ferry", "the campsite", "the science fair", "the photo shoot", "the dance recital",
)  # fmt: skip
PEOPLE = (
    "my roommate", "my boss", "mom", "grandpa", "the cat", "my bestie", "my little brother", "the neighbours",
    "our coach", "my cousin", "the intern", "my lab partner", "auntie", "the landlord", "my sister", "our teacher",
    "the new guy", "dad", "my dog", "the mods",
)  # fmt: skip
EVENTS = (
    "{who} texts back", "it's {day}", "the bus shows up", "the results for {topic} drop",
    "{who} says we need to talk", "{who} calls about {topic}", "{topic} starts", "{who} opens the door",
    "{topic} comes up again", "the screen says {topic}", "{who} brings up {topic}", "it is {day} and {topic} is on",
    "the alarm rings on {day}", "{who} sends a picture of {topic}", "someone mentions {topic}",
    "{who} walks into {topic}", "the email about {topic} arrives", "{who} asks about {topic}",
)  # fmt: skip
DAYS = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "payday",
    "exam day",
    "moving day",
)
OPENERS = ("ngl", "fr", "bruh", "lowkey", "tbh", "ok so", "yo", "istg", "not gonna lie", "y'all", "bro", "chat,")
TAILS = ("fr fr", "no cap", "iykyk", "ong", "help", "anyway", "again", "that's it that's the post", "deadass", "idk")
EMOJI = ("💀", "😭", "🫠", "👀", "🙃", "✨", "🔥", "🤡", "😅", "💅")
TAGS = ("#mood", "#relatable", "#fyp", "#real", "#nofilter", "#me", "#dailypost", "#random", "#life", "#meme")
HANDLE_FIRST = (
    "sleepy",
    "cosmic",
    "salty",
    "tiny",
    "retro",
    "mellow",
    "spicy",
    "lucky",
    "feral",
    "pixel",
    "sunny",
    "grumpy",
    "quiet",
)
HANDLE_LAST = (
    "otter",
    "pickle",
    "waffle",
    "moth",
    "gremlin",
    "noodle",
    "badger",
    "cactus",
    "comet",
    "pigeon",
    "teapot",
    "yeti",
    "crab",
)


@dataclass(frozen=True, slots=True)
class SyntheticPost:
    """One planned post: `meaning` is the true emotion, `label` the one on record; without a `mood` there is no face."""

    index: int
    modality: str
    meaning: str
    label: str
    tone: Tone
    mood: Mood | None
    author: int
    text: str = ""
    caption: str = ""
    picture_of: int | None = None
    text_of: int | None = None


def quotas(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers nearest to the shares that sum to `total` (largest remainder; ties go to the earlier name)."""
    exact = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def cross_quotas(rows: Mapping[str, int], columns: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """A table of whole numbers with exactly these margins, as near to independence as whole numbers allow."""
    total = sum(rows.values())
    exact = {(r, c): rows[r] * columns[c] / total for r in rows for c in columns}
    table = {cell: int(value) for cell, value in exact.items()}
    for _ in range(total - sum(table.values())):
        row_left = {r: rows[r] - sum(table[r, c] for c in columns) for r in rows}
        column_left = {c: columns[c] - sum(table[r, c] for r in rows) for c in columns}
        free = [cell for cell in table if row_left[cell[0]] > 0 and column_left[cell[1]] > 0]
        table[max(free, key=lambda cell: exact[cell] - table[cell])] += 1
    return table


def plan_posts(posts: int, seed: int) -> list[SyntheticPost]:
    """Decides everything about a corpus but its pixels; classes and modalities meet `CLASS_SHARES` by exact quotas."""
    if posts < MIN_POSTS:
        raise ValueError(TOO_FEW.format(posts=posts))
    rng = np.random.default_rng([seed, posts])
    table = cross_quotas(quotas(posts, MODALITY_SHARES), quotas(posts, CLASS_SHARES))
    authors = _authors(posts, rng)
    drafts: list[SyntheticPost] = []
    for (modality, meaning), count in table.items():
        for tone, mood in _tones_and_moods(modality, meaning, count):
            drafts.append(SyntheticPost(0, modality, meaning, meaning, tone, mood, author=0))
    order = rng.permutation(posts)
    plan = [replace(drafts[k], index=i, author=int(authors[i])) for i, k in enumerate(order)]
    plan = _with_noise(_with_reposts(plan, rng), rng)
    return _with_texts(plan, seed)


def _authors(posts: int, rng: np.random.Generator) -> np.ndarray:
    """An author for each post: about posts / 4 of them, few of whom post a lot; (posts,) of author numbers."""
    count = max(posts // POSTS_PER_AUTHOR, 5)
    weights = 1 / (np.arange(count) + 6.0)
    more = rng.choice(count, size=posts - count, p=weights / weights.sum())
    return rng.permutation(np.concatenate([np.arange(count), more]))


def _tones_and_moods(modality: str, meaning: str, count: int) -> list[tuple[Tone, Mood | None]]:
    """Tones by quota within a cell of the plan, each with a mood that together with it means `meaning`."""
    if modality == "text":
        return [("open", None)] * count
    tones: tuple[Tone, ...] = ("open", "vague", "ironic") if meaning in FLIPPED else ("open", "vague")
    counts = quotas(count, {tone: TONE_SHARES[tone] for tone in tones})
    things = counts["open"] // 4 if modality == "image" else 0
    pairs: list[tuple[Tone, Mood | None]] = [("open", None) for _ in range(things)]
    for tone in tones:
        mood = FLIPPED[meaning] if tone == "ironic" else MOODS[meaning]
        pairs.extend((tone, mood) for _ in range(counts[tone] - (things if tone == "open" else 0)))
    return pairs


def _with_reposts(plan: list[SyntheticPost], rng: np.random.Generator) -> list[SyntheticPost]:
    """Makes some picture posts repeat an earlier one by somebody else: its picture or its text, in turn."""
    plan = list(plan)
    pictured = [p.index for p in plan if p.modality == "image"]
    taken: set[int] = set()
    for number in range(round(REPOSTS * len(plan))):
        for first in rng.permutation(pictured):
            source = plan[first]
            later = [
                i
                for i in pictured
                if i > first
                and i not in taken
                and plan[i].meaning == source.meaning
                and plan[i].author != source.author
            ]
            if first not in taken and later:
                again = later[int(rng.integers(len(later)))]
                kind = {"picture_of": source.index} if number % 2 == 0 else {"text_of": source.index}
                plan[again] = replace(plan[again], tone=source.tone, mood=source.mood, **kind)
                taken |= {int(first), again}
                break
    return plan


def _with_noise(plan: list[SyntheticPost], rng: np.random.Generator) -> list[SyntheticPost]:
    """Swaps the labels of random pairs, which leaves every quota as it was; reposts keep the label they repeat."""
    plan = list(plan)
    repeated = {p.picture_of for p in plan} | {p.text_of for p in plan}
    free = [p.index for p in plan if p.picture_of is None and p.text_of is None and p.index not in repeated]
    waiting = [int(i) for i in rng.permutation(free)]
    for _ in range(round(LABEL_NOISE * len(plan) / 2)):
        first = waiting.pop()
        second = next(
            i
            for i in reversed(waiting)
            if plan[i].modality == plan[first].modality and plan[i].meaning != plan[first].meaning
        )
        waiting.remove(second)
        plan[first], plan[second] = (
            replace(plan[a], label=plan[b].meaning) for a, b in ((first, second), (second, first))
        )
    return plan


def bare(text: str) -> str:
    """Letters, digits and single spaces only: what two texts have in common when a reader would call them the same."""
    return " ".join(re.sub(r"[^a-z0-9 ]+", " ", re.sub(r"#\w+", " ", text.lower())).split())


def _with_texts(plan: list[SyntheticPost], seed: int) -> list[SyntheticPost]:
    """Writes every post; no two texts are the same, reposted texts aside."""
    seen: set[str] = set()
    written: list[SyntheticPost] = []
    for post in plan:
        rng = np.random.default_rng([seed, post.index, 0])
        text, caption = _compose(post, rng)
        while bare(text) in seen:
            text, caption = _compose(post, rng)
        seen.add(bare(text))
        if post.text_of is not None:
            text = written[post.text_of].text
        written.append(replace(post, text=text, caption=caption))
    return written


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _fill(template: str, rng: np.random.Generator) -> str:
    """Fills the slots of a template; an event has slots of its own."""
    return template.format(
        topic=_pick(rng, TOPICS),
        who=_pick(rng, PEOPLE),
        day=_pick(rng, DAYS),
        jab=_pick(rng, JABS),
        jibe=_pick(rng, JIBES),
        sneer=_pick(rng, SNEERS),
        event=_pick(rng, EVENTS).format(topic=_pick(rng, TOPICS), who=_pick(rng, PEOPLE), day=_pick(rng, DAYS)),
    )


def _compose(post: SyntheticPost, rng: np.random.Generator) -> tuple[str, str]:
    """A text in this post's tone and its author's slang, and a caption for its picture that gives nothing away."""
    templates = {"open": OPEN[post.meaning], "vague": VAGUE, "ironic": IRONIC}[post.tone]
    text = _fill(_pick(rng, templates), rng)
    habit = np.random.default_rng([post.author])
    opener, tail, emoji, tag = (_pick(habit, options) for options in (OPENERS, TAILS, EMOJI, TAGS))
    if rng.random() < 0.3:
        text = f"{opener if rng.random() < 0.6 else _pick(rng, OPENERS)} {text}"
    if rng.random() < 0.2:
        text = _mistype(text, rng)
    if rng.random() < 0.2:
        text = f"{text} {tail if rng.random() < 0.6 else _pick(rng, TAILS)}"
    if rng.random() < 0.35:
        text = f"{text} {(emoji if rng.random() < 0.6 else _pick(rng, EMOJI)) * int(rng.integers(1, 4))}"
    if rng.random() < 0.25:
        text = f"{text} {tag if rng.random() < 0.6 else _pick(rng, TAGS)}"
    case = habit.random() + rng.normal(0, 0.08)
    text = text.upper() if case > 0.95 else text[0].upper() + text[1:] if case > 0.6 else text
    return text, _fill(
        _pick(rng, ("me rn", "when / {event}", "pov: {event}", "my face / {topic}", "{day}", "{topic} / be like")), rng
    )


def _mistype(text: str, rng: np.random.Generator) -> str:
    """Swaps two neighbouring letters inside one of the longer words."""
    words = text.split(" ")
    long = [k for k, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if long:
        k = long[int(rng.integers(len(long)))]
        at = int(rng.integers(1, len(words[k]) - 2))
        words[k] = words[k][:at] + words[k][at + 1] + words[k][at] + words[k][at + 2 :]
    return " ".join(words)


def handle(author: int) -> str:
    """The name of an author; different numbers have different names."""
    last, first = divmod(author, len(HANDLE_FIRST))
    return f"{HANDLE_FIRST[first]}_{HANDLE_LAST[last % len(HANDLE_LAST)]}_{author:03d}"


def render_posts(folder: Path, *, posts: int, seed: int, processes: int = 1) -> None:
    """Renders a corpus into `folder`: `manifest.csv`, `images/` and `videos/`. The same arguments give the same bytes.

    The manifest is written last, so a folder without one is unfinished. Each of the `processes` renders some posts.
    Raises FileExistsError if the folder holds anything, ValueError for fewer than `MIN_POSTS` posts.
    """
    if posts < MIN_POSTS:
        raise ValueError(TOO_FEW.format(posts=posts))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: example posts are rendered into a fresh folder")
    (folder / "images").mkdir()
    (folder / "videos").mkdir()
    plan = plan_posts(posts, seed)
    drawn = [(post, post if post.picture_of is None else plan[post.picture_of]) for post in plan]
    jobs = [(folder, seed, drawn[at : at + TOGETHER]) for at in range(0, posts, TOGETHER)]
    rows = [row for part in in_processes(_render, jobs, processes, "drawing posts, parts") for row in part]
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _render(job: tuple[Path, int, list[tuple[SyntheticPost, SyntheticPost]]]) -> list[tuple[str, ...]]:
    """Draws some posts, each given beside the one whose picture it shows; returns their lines of the manifest."""
    folder, seed, part = job
    rows = []
    for post, drawn in part:
        media = {"image": "", "video": ""}
        if post.modality == "image":
            media["image"] = _save_picture(folder, post, drawn, seed)
        elif post.modality == "video":
            media["video"] = _save_clip(folder, post, seed)
        rows.append(
            (f"post_{post.index:05d}", post.text, media["image"], media["video"], post.label, handle(post.author))
        )
    return rows


def _save_picture(folder: Path, post: SyntheticPost, drawn: SyntheticPost, seed: int) -> str:
    """Draws the picture of ``drawn`` and saves it as a post's, a repost smaller and compressed again as reposts are.

    Returns its path.
    """
    rng = np.random.default_rng([seed, drawn.index, 1])
    picture = render_picture(drawn.mood, drawn.caption, rng)
    if post.picture_of is not None:
        picture = picture.resize((picture.width * 7 // 8, picture.height * 7 // 8), Image.Resampling.LANCZOS)
    elif rng.random() < 0.06:
        path = f"images/post_{post.index:05d}.png"
        picture.save(folder / path, compress_level=6)
        return path
    path = f"images/post_{post.index:05d}.jpg"
    picture.save(folder / path, quality=88 if post.picture_of is None else 60)
    return path


def _save_clip(folder: Path, post: SyntheticPost, seed: int) -> str:
    """Draws, speaks and saves a post's clip; returns its path."""
    assert post.mood is not None
    path = f"videos/post_{post.index:05d}.mp4"
    frames = render_clip(post.mood, post.caption, np.random.default_rng([seed, post.index, 1]))
    write_clip(folder / path, frames, _sound(post, seed))
    return path


Voice = Mood | Literal["no sound", "muted"]


def voice_of(post: SyntheticPost, rng: np.random.Generator) -> Voice:
    """The feeling in which a clip is spoken: what is meant, or now and then any other."""
    meant = MOODS[post.meaning]
    others: list[Mood] = [mood for mood in MOODS.values() if mood != meant]
    choices: list[Voice] = ["no sound", "muted", others[int(rng.integers(len(others)))], meant]
    return choices[int(rng.choice(4, p=[NO_SOUND, MUTED, PUT_ON, 1 - NO_SOUND - MUTED - PUT_ON]))]


def _sound(post: SyntheticPost, seed: int) -> np.ndarray | None:
    """float32 [samples] in the voice of the post's author, as long as the clip; None for a clip without a track."""
    rng = np.random.default_rng([seed, post.index, 2])
    voice, seconds = voice_of(post, rng), CLIP_FRAMES / CLIP_FPS
    if voice == "no sound":
        return None
    if voice == "muted":
        return np.zeros(round(seconds * RATE), dtype=np.float32)
    return speak(Speaker.draw(np.random.default_rng([seed, post.author, 3])), voice, seconds, rng)


def write_clip(path: Path, frames: Iterator[Image.Image], sound: np.ndarray | None) -> None:
    """Writes RGB frames of `CLIP_SIZE` as H.264 at `CLIP_FPS`, and sound at `RATE` as AAC: equal input, equal bytes."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS, options=X264)
        stream.width = stream.height = CLIP_SIZE
        stream.pix_fmt = "yuv420p"
        if sound is not None:
            track = container.add_stream("aac", rate=RATE, layout="mono", options={"flags": "+bitexact"})
            track.bit_rate = AAC_BIT_RATE
            spoken = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            spoken.sample_rate = RATE
            container.mux(track.encode(spoken))
            container.mux(track.encode(None))
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
