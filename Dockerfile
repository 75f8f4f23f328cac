# The sink (and every other command of cdc-lake) in a small image: Python, the locked packages, nothing else.
# The tag is exact. Where your builds must not depend on a registry's word for it, add the digest: docker buildx imagetools inspect.
FROM python:3.13.9-slim-trixie AS build
WORKDIR /src
RUN python -m venv /opt/cdc-lake
COPY requirements-image.lock ./
RUN /opt/cdc-lake/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md ./
COPY cdc_lake ./cdc_lake
COPY notebooks ./notebooks
RUN /opt/cdc-lake/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && /opt/cdc-lake/bin/pip uninstall --yes --quiet pip hatchling editables trove-classifiers

FROM python:3.13.9-slim-trixie
# The number is that of the user in Debezium's image: Connect reads the capture role's password from a file that
# `connector register` writes for its own user alone.
RUN groupadd --gid 1001 cdc && useradd --uid 1001 --gid cdc --no-create-home --home-dir /project cdc \
    && install -d -o cdc -g cdc /project /project/lake /project/.cdc-lake
COPY --from=build /opt/cdc-lake /opt/cdc-lake
ENV PATH=/opt/cdc-lake/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /project
USER 1001
ENTRYPOINT ["cdc-lake"]
CMD ["--help"]
