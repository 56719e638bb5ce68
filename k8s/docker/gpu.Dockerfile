# For NVIDIA GPUs. From the root of the checkout:
#   docker build --file k8s/docker/gpu.Dockerfile --tag registry.example.com/multiverse-gpu:0.1.0 .
# CUDA's libraries come with torch's wheels, the driver from the node.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements/gpu.lock /app/requirements/
RUN pip install --no-deps --requirement /app/requirements/gpu.lock \
    && python -c 'import torch; assert torch.version.cuda'
COPY pyproject.toml README.md LICENSE /app/
COPY platform /app/platform
# Editable: vLLM finds the plugin by its entry point, and Serve finds deployments/ beside the source root.
RUN pip install --no-deps --no-build-isolation --editable /app

FROM python:3.11.14-slim-bookworm
# g++: Triton and torch compile for the GPU that they find. libnuma1: vLLM's kernels for the host are linked to it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp multiverse
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
COPY deployments /app/deployments
COPY jobs /app/jobs
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app/platform:/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# What of the driver NVIDIA's runtime mounts. Which GPUs, only the device plugin says: "all" here would give a head all.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 1000:1000
