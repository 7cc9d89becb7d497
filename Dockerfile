# One image a kind of host; docker-compose.yml builds them all. By hand:
#
#     docker build --tag promptmill:cuda --build-arg EXTRAS=cuda,metrics .
#
# There is no HEALTHCHECK here: a worker and Flower are healthy in different ways, and the compose file says in which.
FROM python:3.12-slim

# What pyproject.toml calls them: worker (CPU), tpu or cuda, or flower; and metrics, which Prometheus reads.
ARG EXTRAS=worker,metrics

ENV PYTHONUNBUFFERED=1

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY producer producer
COPY worker worker
COPY dataset dataset
COPY promptmill promptmill
RUN --mount=type=cache,target=/root/.cache/pip pip install ".[${EXTRAS}]"

# Whichever user runs it may write here: models from the hub and XLA's programs in /cache, images in /out.
RUN useradd --uid 1000 --create-home promptmill && install --directory --mode 1777 /cache /out
ENV HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache
VOLUME /cache

USER promptmill
WORKDIR /home/promptmill
COPY examples examples
CMD ["promptmill", "worker"]
