# The command line, for a container without root and without a writable root filesystem.
#
#   docker build --tag msmarco-qdrant .
#   docker build --tag msmarco-qdrant --build-arg EXTRAS=parquet,serve,offline .
#
# Files written at run time are in /models (models from the hub), /work (rejects, and the
# store if none is named), /spool and /inbox (of `serve`, where its settings name them) and /tmp.
ARG PYTHON=3.12.14-slim-trixie

# ---- the wheel -------------------------------------------------------------------------------
FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt hatchling hatch-fancy-pypi-readme
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY msmarco_qdrant msmarco_qdrant
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# ---- the wheel with what it needs, in a virtual environment without pip ------------------------
FROM python:${PYTHON} AS installed
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY constraints.txt ./
# torch by itself and first: its CPU build lives in an index of its own, and PyPI's would bring
# gigabytes of CUDA. The same version satisfies the next step, which then leaves it alone.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv/bin/python install --no-deps --constraint constraints.txt \
        --index-url https://download.pytorch.org/whl/cpu torch
# Extras of the package: parquet, serve (the sidecar), offline (a model in the image), eval.
ARG EXTRAS=parquet,serve
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/venv/bin/python install --constraint constraints.txt \
        "$(echo /wheels/*.whl)${EXTRAS:+[${EXTRAS}]}" \
    && pip --python /opt/venv/bin/python check

# ---- the final image -------------------------------------------------------------------------------
FROM python:${PYTHON}
RUN groupadd --gid 10001 msmarco \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /work \
        --shell /usr/sbin/nologin msmarco \
    && install --directory --owner 10001 --group 10001 /models /work /spool /inbox
COPY --from=installed /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    HF_HOME=/models \
    HF_HUB_DISABLE_TELEMETRY=1 \
    MSMARCO_QDRANT_SPOOL=/spool
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="msmarco-qdrant" \
      org.opencontainers.image.description="MS MARCO passage search in Qdrant" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Not /spool: without a mount a read-only container reports an error, instead of keeping accepted
# batches in an unnamed volume, which is deleted with the container.
VOLUME ["/models", "/work"]
WORKDIR /work
USER 10001:10001
# An interrupted ingest reports what it has written; the first process of a container ignores TERM.
# `serve` accepts both.
STOPSIGNAL SIGINT
ENTRYPOINT ["msmarco-qdrant"]
CMD ["--help"]
