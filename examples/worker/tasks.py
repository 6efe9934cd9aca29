from mindtrace.jobs import Consumer, JobInput, JobOutput, JobSchema, Reject


class Image(JobInput):
    path: str


class Report(JobOutput):
    defects: int


class Inspector(Consumer):
    schema = JobSchema(name="inspect", input=Image, output=Report)

    def run(self, job):
        if not job.payload.path.endswith(".png"):
            raise Reject("not a PNG")
        return Report(defects=len(job.payload.path))  # your work here
