"""Scripts and captions: what is shown, and the words for it. The only place that knows which combinations are held out.

script() draws one or two scenes with the chunk they start at, and one caption per chunk. A caption is made of a subject phrase, a verb
phrase, a place phrase and sometimes more, in several orders. held_out() keeps a tenth of the (subject, motion, place) combinations and a
tenth of the (subject, wording) pairs away from training, by a hash of their names.
"""
import random
import re
import unicodedata
import zlib

from .motions import MOTIONS
from .places import PLACES, TIMES
from .sprites import SUBJECTS

KIND = {s["name"]: s["kind"] for s in SUBJECTS}
WORDS = {s["name"]: s["words"] for s in SUBJECTS}
CAMERA = {"still": (0, 0, 0), "pan left": (-1, 0, 0), "pan right": (1, 0, 0), "zoom in": (0, 0, 1), "zoom out": (0, 0, -1)}

# every verb phrase is in the base form of "a fox ...s"; {s} is the ending of the third person
VERBS = {
    "left": ["move{s} left", "go{es} left", "go{es} to the left", "head{s} left", "walk{s} left", "run{s} to the left", "travel{s} left"],
    "right": ["move{s} right", "go{es} right", "go{es} to the right", "head{s} right", "walk{s} right", "run{s} to the right", "travel{s} right"],
    "up": ["move{s} up", "go{es} up", "rise{s}", "climb{s}", "move{s} upwards"],
    "down": ["move{s} down", "go{es} down", "sink{s}", "descend{s}", "move{s} downwards"],
    "jump": ["jump{s}", "jump{s} up and down", "hop{s}", "leap{s}", "keep{s} jumping", "{is} jumping"],
    "bounce": ["bounce{s}", "bounce{s} around", "{is} bouncing", "keep{s} bouncing"],
    "spin": ["spin{s}", "spin{s} around", "rotate{s}", "turn{s} around", "{is} spinning", "twirl{s}"],
    "circle": ["circle{s}", "move{s} in a circle", "go{es} in circles", "{is} circling", "orbit{s}"],
    "grow": ["grow{s}", "get{s} bigger", "grow{s} bigger", "{is} growing", "become{s} bigger"],
    "shrink": ["shrink{s}", "get{s} smaller", "{is} shrinking", "become{s} smaller"],
    "float": ["float{s} up", "float{s}", "{is} floating", "drift{s} up", "hover{s} up"],
    "fall": ["fall{s}", "fall{s} down", "{is} falling", "drop{s}", "tumble{s} down"],
    "nod": ["nod{s}", "{is} nodding", "nod{s} yes", "say{s} yes"],
    "shake": ["shake{s}", "{is} shaking", "shake{s} no", "say{s} no", "tremble{s}"],
    "sway": ["sway{s}", "swing{s}", "{is} swaying", "{is} swinging", "dance{s}", "{is} dancing"],
    "roll": ["roll{s}", "roll{s} along", "{is} rolling", "roll{s} right"],
    "fly": ["fl{ies}", "fl{ies} away", "{is} flying", "take{s} off", "soar{s}"],
    "stay": ["stay{s}", "stand{s} still", "wait{s}", "rest{s}", "{is} here", "stay{s} still"],
}
OWN_VERBS = {  # wordings that suit only some kinds
    ("vehicle", "left"): ["drive{s} left", "drive{s} to the left"], ("vehicle", "right"): ["drive{s} right", "drive{s} to the right"],
    ("animal", "left"): ["walk{s} to the left"], ("animal", "right"): ["walk{s} to the right"],
}
PLACE_PHRASES = {
    "beach": ["on the beach", "at the beach", "by the sea", "on the sand"], "city": ["in the city", "in town", "downtown", "over the city"],
    "forest": ["in the forest", "in the woods", "among the trees"], "snow": ["in the snow", "in the mountains", "in winter"],
    "desert": ["in the desert", "among the dunes"], "ocean": ["under water", "in the ocean", "underwater", "under the sea"],
    "space": ["in space", "among the stars", "in outer space"], "meadow": ["in the meadow", "in the field", "on the grass", "in the garden"],
    "room": ["in the room", "at home", "in the living room", "inside", "indoors"], "road": ["on the road", "on the street", "in the street"],
}
TIME_PHRASES = {"day": ["by day", "in the daytime", "on a sunny day"], "sunset": ["at sunset", "in the evening", "at dusk"], "night": ["at night", "by night", "in the dark"]}
SIZE_WORDS = {"small": ["small", "little", "tiny"], "big": ["big", "large", "huge", "giant"]}
SPEED_WORDS = {"slow": ["slowly", "gently", "calmly"], "fast": ["quickly", "fast", "rapidly"]}
CAMERA_PHRASES = {
    "pan left": ["while the camera pans left", "the camera moves left"], "pan right": ["while the camera pans right", "the camera moves right"],
    "zoom in": ["the camera zooms in", "zooming in", "in close up"], "zoom out": ["the camera zooms out", "zooming out", "seen from far away"],
}
ALIASES = {
    "kitty": "cat", "goes": "go", "is": "are", "flies": "fly", "foxes": "fox", "buses": "bus", "bunnies": "bunny", "puppies": "puppy", "faces": "face",
    "moving": "move", "going": "go", "jumping": "jump", "hopping": "hop", "bouncing": "bounce", "spinning": "spin", "rotating": "rotate",
    "circling": "circle", "growing": "grow", "shrinking": "shrink", "floating": "float", "falling": "fall", "nodding": "nod", "shaking": "shake",
    "swaying": "sway", "swinging": "swing", "dancing": "dance", "rolling": "roll", "flying": "fly", "walking": "walk", "running": "run",
    "driving": "drive", "rising": "rise", "zooming": "zoom", "panning": "pan", "smiles": "smiling", "smile": "smiling", "laughs": "laughing",
    "laugh": "laughing", "cries": "crying", "cry": "crying", "winks": "winking", "wink": "winking", "sleeps": "sleeping", "emoji": "face",
    "smiley": "smiling", "an": "a", "one": "a", "enormous": "huge", "evening": "sunset", "dusk": "sunset", "nighttime": "night", "butterflies": "butterfly",
    "fishes": "fish", "wolf": "fox", "spacecraft": "rocket", "starship": "rocket", "woods": "forest", "snowy": "snow", "sea": "ocean", "seaside": "beach",
    "street": "road", "grass": "meadow", "field": "meadow", "town": "city", "underwater": "ocean", "hops": "hop", "leaps": "leap", "speaks": "say",
    "mountain": "mountains", "star": "star", "stars": "stars", "doughnuts": "donut", "cupcake": "cake", "vehicle": "car", "jet": "plane", "steamboat": "boat",
    "ship": "boat", "hare": "rabbit", "pup": "puppy", "moonlight": "night", "sunny": "day", "daytime": "day",
}


def held_out(subject, motion, place, wording=None):
    """True for what training never sees: a tenth of the combinations, and a tenth of the wordings of each subject."""
    if zlib.crc32(f"{subject}/{motion}/{place}".encode()) % 10 == 0:
        return True
    return wording is not None and zlib.crc32(f"{subject}:{wording}".encode()) % 10 == 0


def scene(rng, rich=1.0, hidden=False, **fixed):
    """A random scene that training may see, or with `hidden` one that it never does. `rich` scales how often it has a second subject, a size, a speed
    or a camera move."""
    while True:
        s = {"subjects": [rng.choice(SUBJECTS)["name"]], "motion": rng.choice(MOTIONS), "place": rng.choice(PLACES), "time": "day",
             "size": "normal", "speed": "normal", "camera": "still"}
        s["time"] = rng.choice(TIMES.get(s["place"], ["day", "day", "sunset", "night"]))
        pair = rng.random()
        if pair < 0.08 * rich:
            s["subjects"] *= 2
        elif pair < 0.16 * rich:
            other = rng.choice(SUBJECTS)["name"]
            s["subjects"] += [other] if KIND[other] != "face" and KIND[s["subjects"][0]] != "face" else []
        if rng.random() < 0.2 * rich:
            s["size"] = rng.choice(["small", "big"]) if len(s["subjects"]) == 1 else "small"
        if rng.random() < 0.2 * rich:
            s["speed"] = rng.choice(["slow", "fast"])
        if rng.random() < 0.08 * rich:
            s["camera"] = rng.choice(list(CAMERA)[1:])
        s.update(fixed)
        if s["time"] not in TIMES.get(s["place"], ["day", "sunset", "night"]):
            s["time"] = "day"
        if any(held_out(name, s["motion"], s["place"]) for name in s["subjects"]) == hidden:
            return s


def verb(rng, s, plural):
    name = s["subjects"][0]
    options = VERBS[s["motion"]] + OWN_VERBS.get((KIND[name], s["motion"]), [])
    options = [v for v in options if not held_out(name, s["motion"], s["place"], v)] or options
    ends = {"s": "", "es": "", "ies": "y", "is": "are"} if plural else {"s": "s", "es": "es", "ies": "ies", "is": "is"}
    return rng.choice(options).format(**ends)


def noun(rng, name, size, article):
    words = WORDS[name]
    word = words[0] if rng.random() < 0.75 else rng.choice(words)
    adjective = "" if size == "normal" else rng.choice(SIZE_WORDS[size]) + " "
    return f"{article}{adjective}{word}{' face' if KIND[name] == 'face' else ''}"


def plural(word):
    return word if word.endswith("fish") else word + "es" if word.endswith(("x", "s")) else word[:-1] + "ies" if word.endswith(("y",)) and word != "kitty" else word + "s"


def who(rng, s):
    names = s["subjects"]
    article = rng.choice(["a ", "a ", "a ", "the ", "one ", ""])
    if len(names) == 1:
        return noun(rng, names[0], s["size"], article), False
    if names[0] == names[1]:
        head = noun(rng, names[0], s["size"], "").split(" ")
        return "two " + " ".join(head[:-1] + [plural(head[-1])]), True
    return f"{noun(rng, names[0], s['size'], article)} and {noun(rng, names[1], s['size'], article)}", True


def caption(rng, s, then=None):
    """One sentence for scene s; with `then`, "s, then then"."""
    subject, many = who(rng, s)
    action = verb(rng, s, many)
    if s["speed"] != "normal":
        how = rng.choice(SPEED_WORDS[s["speed"]])
        action = f"{action} {how}" if rng.random() < 0.7 else f"{how} {action}"
    if then:
        action += f", then {verb(rng, then, many)}"
    where = rng.choice(PLACE_PHRASES[s["place"]])
    when = rng.choice(TIME_PHRASES[s["time"]]) if s["time"] != "day" or rng.random() < 0.1 else ""
    order = rng.random()
    if order < 0.62:
        text = f"{subject} {action} {where} {when}"
    elif order < 0.76:
        text = f"{where}, {subject} {action} {when}"
    elif order < 0.88:
        text = f"{when} {subject} {action} {where}"
    else:
        text = f"{subject} {where} {when} {action}"
    if s["camera"] != "still":
        text += ", " + rng.choice(CAMERA_PHRASES[s["camera"]])
    return " ".join(text.split()).replace(" ,", ",")


def script(rng, chunks, rich=1.0):
    """(scenes, the chunk each starts at, the caption of each chunk). 30 % of the clips change at a chunk boundary."""
    first = scene(rng, rich)
    if chunks < 2 or rng.random() > 0.3 * rich:
        return [first], [0], [caption(rng, first)] * chunks
    at = rng.randrange(1, chunks)
    what = rng.choice(["motion", "motion", "subject", "place", "then"])
    keep = dict(first)
    while True:
        second = dict(keep)
        other = scene(rng, rich)
        if what in ("motion", "then"):
            second["motion"] = other["motion"]
        elif what == "place":
            second["place"], second["time"] = other["place"], other["time"]
        else:
            second["subjects"] = [other["subjects"][0]] * len(first["subjects"])
        if second != keep and not any(held_out(n, second["motion"], second["place"]) for n in second["subjects"]):
            break
    if what == "then":                                          # one sentence for both: the history says how far it is
        return [first, second], [0, at], [caption(rng, first, then=second)] * chunks
    return [first, second], [0, at], [caption(rng, first)] * at + [caption(rng, second)] * (chunks - at)


def vocabulary():
    """All words of all templates in base form, in a fixed order: the tokenizer's table."""
    phrases = [v.format(s="", es="", ies="y", **{"is": "are"}) for group in (VERBS, OWN_VERBS) for vs in group.values() for v in vs]
    phrases += [p for group in (PLACE_PHRASES, TIME_PHRASES, SIZE_WORDS, SPEED_WORDS, CAMERA_PHRASES) for ps in group.values() for p in ps]
    phrases += [w for s in SUBJECTS for w in s["words"]] + ["a the and then two face are it to of with left right up down camera zoom pan move"]
    words = []
    for phrase in phrases:
        for piece in pieces(phrase):
            base = ALIASES.get(piece, piece)
            if base not in words and not (base.endswith("s") and base[:-1] in words):
                words.append(base)
    return ["<pad>", "</s>", "<unk>"] + words


def pieces(text):
    return [p for p in re.split(r"[^\w']+|_", unicodedata.normalize("NFKC", text).lower()) if p]


class Tokenizer:
    """The contract's "words" tokenizer: piece, alias, piece without a final s, else <unk>."""

    def __init__(self, text_len=24):
        self.words, self.text_len = vocabulary(), text_len
        self.ids = {w: i for i, w in enumerate(self.words)}
        self.aliases = {a: w for a, w in ALIASES.items() if a not in self.ids and w in self.ids}

    def encode(self, text):
        ids = [self.lookup(p) for p in pieces(text)][:self.text_len - 1] + [1]
        return ids + [0] * (self.text_len - len(ids))

    def lookup(self, piece):
        for form in (piece, self.aliases.get(piece), piece[:-1] if piece.endswith("s") else None):
            if form in self.ids:
                return self.ids[form]
        return 2
