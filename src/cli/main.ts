import { keepIgnoring } from './ignored.ts';
import { ExitStatus } from './report.ts';
import { runCli } from './run.ts';
import { outliveReaders } from './streams.ts';

keepIgnoring();
outliveReaders();
const status = await runCli(process.argv.slice(2));
// A failed write after this point sets the status as well.
if (status !== ExitStatus.Ok) process.exitCode = status;
