# `brats` in a container, for predicting with a model of `brats export`; docs/export.md shows how.
# scripts/check_dockerfile carries these steps out without docker.
FROM python:3.11-slim
WORKDIR /opt/brats
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY brats_cache/ brats_cache/
COPY brats_train/ brats_train/
RUN python -m pip install --no-cache-dir --constraint constraints.txt '.[onnx]' \
    && python -m pip check
# For any --user: libraries write their caches, and models of the hub go, below here.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["brats"]
CMD ["--help"]
