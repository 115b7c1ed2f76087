# qFitLatent for the CPU: the package with its model, and nothing to configure. As root it never runs.
#
#   docker build -t qfitlatent .
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" qfitlatent predict my.pdb -o predicted
#
# The versions are those of constraints.txt. A GPU needs the CUDA build of torch and another base.
FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /opt/qfitlatent
ENV PATH=/opt/qfitlatent/bin:$PATH
COPY constraints.txt ./
# By itself and first: the largest layer, which a change of the code leaves as it is.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch
COPY pyproject.toml README.md LICENSE MANIFEST.in Snakefile ./
COPY envs envs
COPY profiles profiles
COPY workflow workflow
COPY src src
RUN pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/qfitlatent /opt/qfitlatent
# Whatever user the container runs as, caches go where anyone may write.
ENV PATH=/opt/qfitlatent/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["qfitlatent"]
CMD ["--help"]
