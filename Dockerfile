# Pennyweight and its server, as a user without rights. docs/how-to/deploy.md shows how to use it.
#
#   docker build --tag pennyweight --build-arg TORCH_INDEX=URL .
#   docker build --tag pennyweight:cuda --build-arg TORCH=locked .
#
# TORCH        the build of PyTorch, for the CPU unless another one is named; "locked" for that of
#              locks/torch.txt, which is for NVIDIA GPUs.
# TORCH_INDEX  the index that has this build; without it, pip's own.
# EXTRAS       the lock file in locks/ that is installed: serve, main or all.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pennyweight
ENV PATH=/opt/pennyweight/bin:$PATH
WORKDIR /source

# What changes least often comes first, so that a change of the code installs only Pennyweight again.
ARG EXTRAS=serve
COPY locks/${EXTRAS}.txt locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --require-hashes --requirement locks/${EXTRAS}.txt

ARG TORCH=2.13.0+cpu
ARG TORCH_INDEX=
COPY constraints.txt locks/torch.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$TORCH" = locked ]; then \
        pip install --no-deps --require-hashes --requirement torch.txt; \
    else \
        pip install --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$TORCH"; \
    fi

COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && pip check \
    && pennyweight --version

FROM python:${PYTHON}-slim-bookworm
RUN groupadd --gid 10001 pennyweight \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin pennyweight
COPY --from=build /opt/pennyweight /opt/pennyweight
ENV PATH=/opt/pennyweight/bin:$PATH
USER 10001:10001
WORKDIR /home/pennyweight
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["pennyweight"]
CMD ["serve", "/runs/classifier", "--host", "0.0.0.0"]
