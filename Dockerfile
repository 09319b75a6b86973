# deltah and all it needs, the same image for head, workers and single machines. PyTorch's wheels
# bring CUDA along, so a GPU needs only its driver on the machine; without one it runs on the CPU.
#
#   docker build -t deltah --build-arg GIT_COMMIT="$(git rev-parse HEAD)" .
#   docker run --rm --gpus all --shm-size 256m -v "$PWD:/work" deltah demo
#
# Much smaller, for CPUs alone: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=
ARG GIT_COMMIT=
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1

# KubeRay asks with wget whether a pod is well.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 deltah \
    && useradd --uid 1000 --gid 1000 --create-home deltah \
    && install --directory --owner deltah --group deltah /work /cache

# What is installed, before the code, which changes more often.
WORKDIR /opt/deltah
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir lib tasks pipelines cluster \
    && if [ -n "$TORCH_INDEX" ]; then \
        python -m pip install --constraint constraints.txt --index-url "$TORCH_INDEX" torch; \
    fi \
    && python -m pip install --constraint constraints.txt --editable ".[s3]"

COPY lib lib
COPY tasks tasks
COPY pipelines pipelines
COPY cluster cluster
RUN echo "$GIT_COMMIT" > git-commit.txt && python -m compileall -q lib tasks pipelines cluster

USER 1000
WORKDIR /work
ENV HF_HOME=/cache
ENTRYPOINT ["deltah"]
CMD ["--help"]
