# Without a GPU. From the root of the checkout:
#   docker build --file k8s/docker/cpu.Dockerfile --tag multiverse-cpu:0.1.0 .
FROM python:3.11.14-slim-bookworm AS build
# torch's CPU build is on no package index of pip's own.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements/cpu.lock requirements/overrides.txt /app/requirements/
# As `make venv` does it: torch first and by its full version, for the lock's plain pin would bring the CUDA build in.
RUN torch="$(sed -n 's/^\(torch==.*\)/\1+cpu/p' /app/requirements/overrides.txt)" \
    && pip install --no-deps --index-url "$TORCH_INDEX" "$torch" \
    && pip install --no-deps --requirement /app/requirements/cpu.lock \
    && python -c 'import torch; assert torch.version.cuda is None'
COPY pyproject.toml README.md LICENSE /app/
COPY platform /app/platform
# Editable: vLLM finds the plugin by its entry point, and Serve finds deployments/ beside the source root.
RUN pip install --no-deps --no-build-isolation --editable /app

FROM python:3.11.14-slim-bookworm
# g++: vLLM and torch compile for the processor that they find. libnuma1: vLLM's kernels are linked to it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp multiverse
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY deployments /app/deployments
COPY jobs /app/jobs
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/platform:/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 1000:1000
