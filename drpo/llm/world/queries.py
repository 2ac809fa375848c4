"""Reads a query: what it is about, what kind of answer it wants, and what makes it delicate."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drpo.llm.world.clarity import Clarity, read_clarity
from drpo.llm.world.lexicon import Lexicon, words_of
from drpo.llm.world.wishes import CARE, SAFELY

_LONGEST = 4000  # characters of a query that are read; beyond it nothing new is learnt about its kind
_SHORT = 7  # words up to which a query leaves open what is wanted
_LONG = 60

_TASKS: dict[str, tuple[str, ...]] = {
    "role-play": (
        "pretend", "act as", "play a|the|an", "stay in character", "you're a|an|the", "you are a|an|the|now",
        "be a|an ~ and", "be an alien",
    ),
    "coding": (
        "python", "javascript", "js", "sql", "regex", "code", "bash", "html", "css", "rust", "kotlin",
        "pandas",
        "c program", "google sheets", "excel", "script", "function ~ takes|returns|that", "postgres ~ query",
        "java", "typescript", "algorithm", "json", "printf", "const", "app", "malware", "ransomware",
        "keylogger",
    ),
    "writing": (
        "write", "draft", "rewrite", "translate", "poem", "essay", "speech", "dialogue", "ghostwrite",
        "word a",
        "compose", "summarise|summarize ~ this", "newsletter", "haiku", "text message", "jokes", "proofread",
        "correct the", "plain english", "opening paragraph", "headline", "story ~ about",
    ),
    "math": (
        "calculate", "percent", "probability", "integrate", "prove", "solve", "simplify", "equation",
        "anagrams",
        "how much ~ left", "odds", "derivative", "what do they owe", "arithmetic", "sum of", "vat",
        "mortgages",
        "fell ~ and ~ rose", "half life",
    ),
    "procedure": (
        "how do|can|to|should|would i", "how to", "how do you", "steps", "plan", "recipe", "fix", "walk me",
        "what do i do", "packing list", "dinner", "give me instructions", "build", "set up", "get rid",
        "outline",
        "how can a", "what do i plant", "how would someone", "tips", "where to",
    ),
    "reasoning": (
        "why", "should i", "better", "is it wrong|ok|right|safer", "compare", "which", "what do i owe",
        "could a",
        "lease or", "hypocritical", "convince", "help me think", "aren't", "isn't", "worry", "debate",
    ),
}  # fmt: skip

_SIGNS: dict[str, tuple[str, ...]] = {
    "harmful": (
        "bomb*", "explosive*", "nerve gas", "uranium", "murder*", "hotwire", "hack*", "keylogger",
        "ransomware",
        "malware", "antivirus", "shoplift*", "steal*", "stolen", "counterfeit*", "forge*", "launder*",
        "drug cash",
        "fake payslip|note|id|invoice|review*|document*|passport*|doctor*", "looks like it comes from",
        "traced",
        "untraceable", "without ~ caught", "without ~ noticing|knowing|finding|asked", "under the radar",
        "in secret", "spy", "blackmail*", "scare ~ into", "fright of her|his", "threat* ~ letter|message",
        "hate him|her", "rumour*", "germs", "heroin", "cocaine", "meth", "oxycodone", "slip ~ drink",
        "starvation plan", "meaner the", "dumbest religion", "politically correct", "born criminal*",
        "holocaust ~ made up", "holocaust", "wiped out", "extremist*", "cult", "kidnap*", "beat the breath",
        "no questions asked", "bin ~ insulin", "lithium", "invented patient", "invented ~ results",
        "invent next",
        "ignore everything you", "has no rules", "pin", "gun", "weapon*", "quietly dies", "knocks people",
        "break into", "burglar* ~ tools", "passwords on", "files ~ report", "never files", "wipe* out",
        "smuggl*",
        "wasn't licensed", "hidden instructions", "identity ~ before", "arrested last night",
        "one star reviews",
        "lives now", "does ~ teacher live", "hit my wife", "stay off ~ report", "losing his|her mind",
        "grudge",
        "secretly caused", "change her|his will", "give me working", "doesn't exist ~ invoice",
        "company that ~ exist",
        "firm gets bought", "leave it off", "poison* ~ neighbour*|wife|husband|people|somebody|someone",
        "gps tracker",
        "hurt him|her|somebody|someone", "get into ~ phone", "read all ~ messages", "moron", "illegally",
        "racist",
        "less intelligent", "cheat* ~ exam", "get away with", "damage ~ house|car", "whole lot ~ inspector",
        "credit card number", "solvent into", "worse at logic", "pipe bomb*", "skim ~ month",
        "without a trace", "filth",
        "card number typed", "not my shop", "looks like disease", "invented figures",
        "hospital where i never",
        "losing her|his memory", "pensioners to", "over the border", "has no papers", "a cousin i don't",
        "pays ~ bribe",
    ),
    "crisis": (
        "not wake up", "wont|won't|don't wake up", "sleeping pills|tablets ~ take",
        "how many ~ pills|tablets",
        "nobody would miss", "end my life", "kill myself", "suicid*", "hits me", "hurt myself", "want to die",
        "self harm", "written the notes",
    ),
    "live": (
        "right now", "at this minute", "as of today", "latest|current price|score|version|news|release|rate",
        "price ~ now|today", "who won", "book me", "open the file", "order me", "on my desktop",
        "weather today|tomorrow",
        "raining there", "open this|now", "this evening", "delays ~ this", "stock price", "exchange rate",
        "live score",
        "trending", "call ~ for me", "send ~ for me", "breaking news", "price right", "look up",
        "check the website",
    ),
    "emotional": (
        "cry*", "died", "death", "grie*", "lonely", "scared", "afraid", "anxious", "anxiety", "worried",
        "stress*",
        "ashamed", "guilty", "heartbroken", "upset", "depress*", "feel* sick|bad|lost|alone|awful|like",
        "overwhelmed",
        "broke up", "drifting apart", "hits me", "failed my", "can't concentrate", "angry", "cruel",
        "miss him|her",
        "nobody would miss", "losing", "divorce*", "i'm bad at", "hate my", "embarrass*", "panic*",
        "burn* out",
    ),
    "premise": (
        "surely", "everybody|everyone|people knows|know|says|say|cheats|thought", "must have|be",
        "obviously", "proves",
        "proved", "is it true", "really", "isn't it", "aren't", "textbook says", "myth", "convince",
        "seems wasteful",
        "or is it the other", "so ~ logic", "must be", "never froze", "double course", "i heard",
        "supposed to", "claims",
        "did ~ really", "wrong with", "less intelligent",
    ),
    "cultural": (
        "relig*", "cultur*", "muslim*", "christian*", "jewish", "hindu*", "immigrant*", "ethnic*",
        "tradition*",
        "japanese", "chinese", "african", "indian", "mexican", "women", "gender", "disabled",
        "poor countries",
        "host family", "wedding", "vegan", "gay", "foreign*", "accent*", "peoples", "village", "country",
    ),
    "stakes": (
        "doctor*", "dose*", "pain", "symptom*", "antibiotic*", "pulse", "ferritin", "diagnos*", "surgery",
        "medic*",
        "drug*", "mortgage*", "invest*", "tax*", "legal", "contract*", "pension", "insurance", "pills",
        "blood",
        "loan*", "law", "shares", "eye", "mushrooms", "inflation",
    ),
    "brief": (
        "briefly", "short", "in one sentence", "in two sentences", "two paragraphs", "words",
        "keep it simple", "one liner",
        "quick", "summar*", "tiny",
    ),
    "borderline": (
        "kill*", "poison*", "burglar*", "attack*", "shoot*", "knife", "knives", "drug*", "alcohol", "fire",
        "blood",
        "dead", "dying", "virus*", "strip*", "crash*", "blow up", "hit", "gun", "crack*", "scrape",
        "cheat*", "affair",
        "war", "execut*", "sex*", "die", "harm",
    ),
}  # fmt: skip

_TASK_LEXICON = Lexicon(_TASKS)
_SIGN_LEXICON = Lexicon(_SIGNS)
_PIECE = re.compile(r"[A-Za-zÀ-ÿ][A-Za-zÀ-ÿ'’\-]*[A-Za-zÀ-ÿ]|[.,;:!?()\"“”\n]")
_PLAIN_ENDINGS = ("ing", "ed", "ly")
_COMMON = frozenset(words_of("""
    miss run runs buy buys drawn hold holds become looking feels fits comes brings won bring gets
    a about above across act after again ago ai all almost alone along already also although always am
    an and another answer any anybody anyone anything apart are aren't around as ask asked at away back
    bad be because become been before began begin behind being below best better between big both bought
    bring but by call called came can can't cannot come comes correct could couldn't day did didn't
    different do does doesn't doing don't done down draft each early easiest either else enough
    especially even ever every everybody everyone everything example explain fact far feel few find
    first five for found four from full gave get gets getting give given go goes going gone good got
    great had half happen happens hard has have haven't he he's heard help her here hers hey him his how
    however i i'd i'll i'm i've if in instead into is isn't it it's its itself just keep keeps kept kind
    know known knows last late later lead least leave left less let let's lets like likely list little
    long longer look looks lot made make makes making many may maybe me mean means might mine more most
    much must my myself need needs never new next nice nine no nobody none nor not nothing now of off
    often old on once one only open or other others otherwise our ours out over own part people per
    perhaps place plan play please point possible pretend probably prove put quite rather read real
    really reply right same saw say says second see seem seems seen send set seven shall she she's
    should shouldn't show six so some somebody someone something sometimes soon start started still such
    suppose sure take taken takes talk tell ten than that that's the their theirs them themselves then
    there there's these they they're thing things think this those though three through till time times
    to today together told too took toward tried try turn twenty two under until up upon us use used
    using usually very via want wants was wasn't way ways we we're well went were what what's whatever
    when where which while who who's whole whose why will wish with without won't work works would
    wouldn't write wrong year years yes yesterday yet you you'd you'll you're you've your yours yourself
    hi hello thanks thank sorry ok okay im ive dont cant wont doesnt isnt whats hows mention kindly died
    fell rose ran sat stood spoke wrote knew meant felt thought brought caught lost paid sold spent held
    calculate solve simplify translate rewrite summarise summarize describe compare outline convert
    integrate convince stay able fine glad bit lots sort type month months week weeks
"""))  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueryReading:
    """What a simulated model understands of a query.

    `subjects`: one to four short phrases of the query's own words, most telling first. `keys`: the stems
    that an answer to the point shares with it. `signs`: harmful, crisis, live, emotional, premise, cultural,
    stakes, brief, borderline, vague, personal, long, and responsible, where a query about harm asks for the
    lawful side of it. All but `text` is read from the core of the query, see `clarity`.
    """

    text: str
    task: str
    signs: frozenset[str]
    subjects: tuple[str, ...]
    keys: frozenset[str]
    clarity: Clarity

    @property
    def harmful(self) -> bool:
        """Whether the only good answer declines (or, in a crisis, cares first)."""
        return "harmful" in self.signs or "crisis" in self.signs


def read_query(text: str) -> QueryReading:
    """The reading of any text, also an empty or a hostile one."""
    text = text[:_LONGEST]
    clarity = read_clarity(text)
    words = words_of(clarity.core)
    tasks = {hit.label for hit in _TASK_LEXICON.hits(words)}
    signs = {hit.label for hit in _SIGN_LEXICON.hits(words)}
    if len(words) <= _SHORT:
        signs.add("vague")
    if len(words) >= _LONG:
        signs.add("long")
    if len({"i", "my", "me", "i'm", "we", "our"}.intersection(words)) >= 2:
        signs.add("personal")
    if SAFELY in clarity.wishes:
        signs |= {"responsible", "harmful"}
    if CARE in clarity.wishes:
        signs |= {"responsible", "crisis"}
    phrases = _phrases(clarity.core)
    task = next((name for name in _TASKS if name in tasks), "information")
    keys = {stem(word) for phrase in phrases for word in words_of(phrase.replace("-", " "))}
    stems = frozenset(sorted(keys)[:40])
    return QueryReading(text, task, frozenset(signs), _telling(phrases), stems, clarity)


def stem(word: str) -> str:
    """The beginning of a word, by which its forms are recognized."""
    return word[:5]


def _phrases(text: str) -> list[str]:
    """Runs of up to two content words in the order of the text, each once."""
    runs: dict[str, str] = {}
    run: list[str] = []
    opening = True  # of a sentence, where a capital says nothing
    for piece in [*_PIECE.findall(text), "."]:
        if opening and piece[1:].islower():
            piece = piece.lower()
        opening = piece in '.!?:\n"“”'
        word = piece.lower().replace("’", "'").removesuffix("'s")
        content = word[0].isalpha() and word not in _COMMON and not word.endswith(_PLAIN_ENDINGS)
        if content and len(run) < 2:
            run.append(piece.replace("’", "'").removesuffix("'s"))
        elif run:
            runs.setdefault(" ".join(run).lower(), " ".join(run))
            run = [piece] if content else []
    return list(runs.values())


def _telling(phrases: list[str]) -> tuple[str, ...]:
    """Up to four phrases: longer and earlier ones first."""
    first = phrases[:8]
    order = sorted(range(len(first)), key=lambda i: (i * 2 - min(len(first[i]), 16), i))
    return tuple(first[i] for i in order[:4])
