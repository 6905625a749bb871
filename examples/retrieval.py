"""Retrieve passages for a language model, without a framework.

python examples/retrieval.py STORE COLLECTION "a question" prints the prompt: send it to any model.
"""

import sys

from msmarco_qdrant import Hit, SearchClient

PROMPT = """Answer the question with the passages below and cite their numbers, such as [1].
If they do not contain the answer, say so.

{passages}

Question: {question}
"""


def retrieve(client: SearchClient, question: str, limit: int = 5, words: int = 600) -> list[Hit]:
    """Return the best passages that fit into a number of words, the best first."""
    hits: list[Hit] = []
    for hit in client.search(question, mode="hybrid", limit=limit):
        words -= len(hit.text.split())
        if words < 0 and hits:
            break
        hits.append(hit)
    return hits


def make_prompt(question: str, hits: list[Hit]) -> str:
    """Return the prompt for a language model, with a number and the pid for each passage."""
    passages = "\n\n".join(f"[{hit.rank}] ({hit.pid}) {hit.text}" for hit in hits)
    return PROMPT.format(passages=passages, question=question)


def main(store: str, collection: str, question: str) -> None:
    """Print the prompt for a question."""
    with SearchClient.open(store, collection=collection) as client:
        print(make_prompt(question, retrieve(client, question)))


if __name__ == "__main__":
    main(*sys.argv[1:])
