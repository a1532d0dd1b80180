import { keepIgnoring } from './ignored.ts';
import { ExitStatus } from './report.ts';
import { runCli } from './run.ts';
import { outliveReaders } from './streams.ts';

keepIgnoring();
outliveReaders();
const status = await runCli(process.argv.slice(2));
// A write that fails later than this sets the status too.
if (status !== ExitStatus.Ok) process.exitCode = status;
