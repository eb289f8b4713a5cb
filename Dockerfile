# medseg for the CPU, without torch: segments DICOM series or files with a shipped or an exported model.
#
#   docker build -t medseg .
#   docker run --rm --network none -v "$PWD/in:/in:ro" -v "$PWD/out:/out" -u "$(id -u)" medseg job /in /out
#
# As a processing module of mercure it needs no argument. docs/guides/containers.md has the rest.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY requirements-runtime.txt requirements-container.txt ./
RUN python -m venv /opt/medseg \
 && /opt/medseg/bin/pip install --no-cache-dir -r requirements-runtime.txt -r requirements-container.txt
COPY pyproject.toml README.md LICENSE ./
COPY medseg medseg
RUN /opt/medseg/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12-slim-bookworm
COPY --from=build /opt/medseg /opt/medseg
# Runners choose the user, who may have no home: what is cached goes to the container's own /tmp.
ENV PATH=/opt/medseg/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp/cache PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["medseg"]
CMD ["job"]
