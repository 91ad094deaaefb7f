# The service without its embedded database: give it MONGODB_URI and SECRET_KEY. `compose.yaml` has both.
FROM node:22-slim AS playground
WORKDIR /playground
COPY playground/package.json playground/package-lock.json playground/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY playground/ ./
RUN npm run build

FROM python:3.11-slim AS environment
WORKDIR /agenthub
# What the service needs and no more: neither what tests use, nor the embedded mongod, nor pip.
COPY requirements.service.lock ./
RUN python -m venv --without-pip /environment \
    && pip --python /environment/bin/python install --no-cache-dir --no-deps --require-hashes -r requirements.service.lock

FROM python:3.11-slim
RUN groupadd --gid 10001 agenthub \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin agenthub
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
# A checkout may be readable by its owner alone.
RUN chmod -R a+rX /agenthub
ENV HOST=0.0.0.0 PORT=8000 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["/environment/bin/python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/environment/bin/python", "-m", "server"]
CMD ["serve"]
