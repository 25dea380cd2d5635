# docker build -t dfil .
# docker run --rm -v "$PWD/dfil-data:/data" -v "$PWD/dfil-outputs:/outputs" dfil reproduce --profile smoke
# With a GPU: --gpus all. As oneself: --user "$(id -u)". JupyterLab: -p 8888:8888 --entrypoint jupyter dfil
#   lab --ip 0.0.0.0 --allow-root
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /dfil
# What changes seldom first: the packages, in the versions that were tried together.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir dfil notebooks && touch dfil/__init__.py notebooks/none.ipynb \
    && pip install --no-cache-dir -c constraints.txt -e ".[lab,hub]" \
    && rm notebooks/none.ipynb
COPY . .
ENV DFIL_DATA=/data DFIL_OUTPUTS=/outputs
ENTRYPOINT ["dfil"]
