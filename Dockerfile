# One image for the planner (`kinema run`), its HTTP face and the extender (gunicorn): the manifests choose.
# The tags are pinned; docs/operations.md says how to pin the digests as well.
FROM python:3.13-slim-bookworm AS build
WORKDIR /source
COPY tools tools
COPY requirements.lock .
RUN tools/install packages /opt/kinema requirements.lock
COPY . .
RUN tools/install project /opt/kinema

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="kinema" \
      org.opencontainers.image.description="Planner and scheduler extender of Kinema" \
      org.opencontainers.image.licenses="Apache-2.0"
# The same folder as in the first stage: a virtual environment cannot be moved.
COPY --from=build /opt/kinema /opt/kinema
ENV PATH=/opt/kinema/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that runAsNonRoot can be checked without the image's /etc/passwd.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["kinema"]
