"""A web shop that stores an order and publishes the job for its e-mail in one transaction.

It needs ``pip install fastapi uvicorn 'sqlalchemy[asyncio]'``, and a PostgreSQL that ``DATABASE_URL`` names,
such as ``postgresql://postgres@localhost:5432/test``::

    uvicorn shop:app
    mindtrace-jobs worker shop:Mailer --backend "$DATABASE_URL"
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mindtrace.jobs import AsyncOrchestrator, Consumer, Job, JobInput, JobSchema

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://postgres@localhost:5432/test")
JOBS_URL = os.environ.get("JOBS_URL", DATABASE_URL)  # the same database, perhaps with ?namespace=…

engine = create_async_engine(make_url(DATABASE_URL).set(drivername="postgresql+psycopg"))
new_session = async_sessionmaker(engine, expire_on_commit=False)
jobs = AsyncOrchestrator(JOBS_URL)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Mail(JobInput):
    order: int


class Mailer(Consumer[Mail]):
    schema = JobSchema("order-mail", Mail)

    def run(self, job: Job[Mail]) -> None:
        print(f"mail about order {job.payload.order}")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await jobs.register(Mailer.schema)
    yield
    await jobs.close()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
async def order(item: str) -> dict[str, int]:
    async with new_session.begin() as session:  # commits at its end; an error rolls back
        new = Order(item=item)
        session.add(new)
        await session.flush()  # which gives the order its number
        await jobs.publish(Mailer.schema, Mail(order=new.id), connection=session)
        if item == "unicorn":
            raise HTTPException(409, "sold out")  # no order, and no e-mail
    return {"order": new.id}
