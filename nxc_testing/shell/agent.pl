# The machine's end of a shell channel: runs commands for the driver and tells what they do.
#
# Perl, because perl-base is in every Debian image and perl in NixOS' default packages: nothing has
# to be installed in a machine, and it is up in milliseconds also under emulation. It is sent over
# the channel and never touches the disk. `frames.py` lists the messages.
#
# A command runs in a fork of a waiting bash (a "zygote"), so that it costs a fork and not a new
# bash. A zygote is a child subreaper and belongs to one command until that is over: whatever the
# command starts, in sessions of its own too, stays a descendant of its zygote and can be found at
# the deadline. A zygote below which something lives on is not used again.
#
# Nothing here may block on a command, a zygote or a process that is being ended: there is one
# thread, and the next message may be the one that ends them.
#
# Modules are what its start costs, half a second where the machine is emulated: so it has Linux'
# numbers instead of POSIX, Errno and IO::Handle.
use strict;
use warnings;
use Config;

our $TOKEN;
my $PIPE      = 1 << 16;    # what a pipe holds
my $BULK      = 1 << 17;    # what one is made to hold where much goes through it
my $CHUNK     = $BULK;      # one read empties a pipe
my $IDLE_KEPT = 4;
my $TICK      = 1;
my $ROUNDS    = 50;
my ( $PRCTL, $SETSID ) = @{ {
    x86_64  => [ 157, 112 ], aarch64     => [ 167, 157 ], riscv64 => [ 167, 157 ],
    s390x   => [ 172, 66 ],  loongarch64 => [ 167, 157 ], arm     => [ 172, 66 ],
    i386    => [ 172, 66 ],  i686        => [ 172, 66 ],  powerpc64le => [ 171, 66 ],
}->{ $Config{archname} =~ s/-.*//r } || [] };
my ( $PR_SET_PDEATHSIG, $PR_SET_CHILD_SUBREAPER ) = ( 1, 36 );
my ( $F_DUPFD, $F_GETFL, $F_SETFL, $F_SETPIPE_SZ ) = ( 0, 3, 4, 1031 );
my ( $EINTR, $EAGAIN, $O_NONBLOCK, $WNOHANG ) = ( 4, 11, 2048, 1 );
my $KNOWS_PARENT = -e "/proc/$$/task/$$/children";    # CONFIG_PROC_CHILDREN

# How a zygote is set up, by the environment that the driver asks for: what the NixOS backdoor
# gives; what a login shell has once it is up; nothing yet, for commands that become a login shell
# of their own; and nothing at all, while the machine is still booting. LOOP reads the loop below.
# Only in `login` is what the profile left beside the exported variables kept.
my %ENVIRONMENT = (
    strict => {
        argv => [qw(bash --noprofile --norc)],
        text => 'export USER=root HOME=/root DISPLAY=:0.0; . /etc/profile; export PAGER=; '
            . q(exec bash --noprofile --norc -c 'LOOP' bash),
        directory => '/tmp',
        own       => 'bash -c',
    },
    login => { argv => [qw(bash -l)], text => 'LOOP', directory => '~', own => 'bash -c' },
    fresh => {
        argv      => [qw(bash --noprofile --norc)],
        text      => 'LOOP',
        directory => '~',
        own       => 'bash -l -c',
    },
    bare => {
        argv      => [qw(bash --noprofile --norc)],
        text      => 'export USER=root HOME=/root; LOOP',
        directory => '/',
        own       => 'bash -c',
    },
);
my $LOOP = 'eval "$(</proc/AGENT/fd/SCRIPT)"';

# A zygote's loop. It does not stand in an argument, where `pgrep -f` would find its words, and it
# is one line run by -c, so that bash's messages say `bash: line 1:` as for `bash -c COMMAND`.
# 250 brings commands, 251 takes reports. Job control is on at the fork only: it makes the command
# leader of its own process group and leaves its SIGINT and SIGQUIT alone. The command stands at
# top level: under `if`, `||` or in a function its `set -e`, `return` or `local` would mean
# something else. Where its streams cannot be opened, it does not run and is reported without
# a status.
my $ZYGOTE = join ' ', split /\n/, <<'END';
trap - EXIT ERR DEBUG RETURN;
builtin printf "ready\n" >&251;
while IFS=" " builtin read -r -u 250 _i _m _s _o _e _n _l; do
_c=; _p=; _r=;
if [[ $_l ]]; then LC_ALL=C IFS= builtin read -r -u 250 -N "$_n" _c;
else IFS= builtin read -r -u 250 -N "$_n" _c; fi;
set -m;
{ ( set +m; exec 250<&- 251>&-; builtin cd DIRECTORY || :;
if [[ $_m == x ]]; then exec OWN "$_c"; fi;
unset -v _i _m _s _o _e _n _l _p _r; SECONDS=0;
eval "unset -v _c; $_c"
) & _p=$!; } <"/proc/AGENT/fd/$_s" >"/proc/AGENT/fd/$_o" 2>"/proc/AGENT/fd/$_e";
set +m;
if [[ $_p ]]; then _r=0; builtin wait "$_p" || _r=$?; fi;
builtin printf "%s %s\n" "$_i" "$_r" >&251;
done
END

my %commands;    # not over yet, by id
my %zygotes;     # by pid, until they are reaped
my %idle;        # ready for a command, by environment
my %readers;     # what to do when a descriptor can be read: fd => [handle, sub]
my %writers;     # likewise for writing
my $closing;     # the driver is gone

open my $in,   '<&', \*STDIN  or die;
open my $out,  '>&', \*STDOUT or die;
open my $null, '+<', '/dev/null' or die;
fcntl $out, $F_SETPIPE_SZ, 2 * $BULK;    # where it is a pipe
open STDIN,  '<&', $null or die;
open STDOUT, '>&', $null or die;
open STDERR, '>&', $null or die;
# The numbers that a zygote has its own two under are taken from the start.
my @kept = map { open my $kept, '<&=', fcntl( $null, $F_DUPFD, $_ ) or die; $kept } 250, 251;
$SIG{PIPE} = 'IGNORE';
$SIG{HUP}  = 'IGNORE';
$0         = 'nxc-agent';

# --- messages to the driver

sub put {
    my ( $kind, $id, $data ) = @_;
    emit( "$TOKEN $kind $id " . length($data) . "\n" . $data );
}

sub emit {
    my $done = 0;
    while ( $done < length $_[0] ) {
        my $n = syswrite $out, $_[0], length( $_[0] ) - $done, $done;
        if ( defined $n ) { $done += $n; next }
        if ( $! == $EAGAIN ) { vec( my $w = '', fileno $out, 1 ) = 1; select undef, $w, undef, undef; next }
        next if $! == $EINTR;
        return shut_down();
    }
}

# --- pipes

sub new_pipe {
    pipe( my $r, my $w ) or die "no pipe: $!\n";
    return ( $r, $w );
}

sub unblock { my ($handle) = @_; fcntl $handle, $F_SETFL, fcntl( $handle, $F_GETFL, 0 ) | $O_NONBLOCK }

sub when_readable { my ( $handle, $sub ) = @_; $readers{ fileno $handle } = [ $handle, $sub ] }

# Data on its way into a pipe, as fast as it is read there; `taken` is told how much was.
sub new_flow {
    my ( $handle, $taken ) = @_;
    unblock($handle);
    return { handle => $handle, text => '', taken => $taken };
}

sub feed {
    my ( $flow, $data ) = @_;
    return if !$flow->{handle};
    $flow->{text} .= $data;
    $flow->{last} = 1 if !length $data;
    $writers{ fileno $flow->{handle} } = [ $flow->{handle}, sub { pour($flow) } ];
    pour($flow);
}

sub pour {
    my ($flow) = @_;
    if ( length $flow->{text} ) {
        my $n = syswrite $flow->{handle}, $flow->{text}, $CHUNK;
        return if !defined $n && ( $! == $EAGAIN || $! == $EINTR );
        return stem($flow) if !defined $n;
        substr $flow->{text}, 0, $n, '';
        $flow->{taken}->($n) if $flow->{taken};
    }
    return if length $flow->{text};
    delete $writers{ fileno $flow->{handle} };
    stem($flow) if $flow->{last};
}

sub stem {
    my ($flow) = @_;
    my $handle = delete $flow->{handle} or return;
    delete $writers{ fileno $handle };
    close $handle;
}

# --- zygotes

sub new_zygote {
    my ($name)        = @_;
    my $environment   = $ENVIRONMENT{$name} or die "no environment $name\n";
    my %zygote        = ( environment => $name, text => '' );
    my ( $orders,  $reports ) = ();
    ( $zygote{unread}, $orders )      = new_pipe();
    ( $zygote{reports}, $reports )    = new_pipe();
    ( $zygote{script}, my $script_w ) = new_pipe();
    ( my $start = $environment->{text} ) =~ s/LOOP/$LOOP/;
    my $loop = $ZYGOTE;
    for ( $start, $loop ) {
        s/AGENT/$$/g;
        s/SCRIPT/fileno $zygote{script}/e;
        s/DIRECTORY/$environment->{directory}/;
        s/OWN/$environment->{own}/;
    }
    syswrite $script_w, $loop;
    close $script_w;
    $zygote{pid} = fork // die "no process: $!\n";
    become( \%zygote, $reports, @{ $environment->{argv} }, '-c', $start, 'bash' ) if !$zygote{pid};
    close $reports;
    unblock( $zygote{reports} );
    $zygote{orders} = new_flow($orders);
    when_readable( $zygote{reports}, sub { report( \%zygote ) } );
    return $zygotes{ $zygote{pid} } = \%zygote;
}

sub become {
    my ( $zygote, $reports, @argv ) = @_;
    $SIG{$_} = 'DEFAULT' for qw(HUP INT QUIT PIPE TERM CHLD USR1 USR2 ALRM TSTP TTIN TTOU);
    if ($PRCTL) {
        syscall $SETSID;
        syscall $PRCTL, $PR_SET_PDEATHSIG,       9, 0, 0, 0;
        syscall $PRCTL, $PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0;
    }
    else { require POSIX; POSIX::setsid() }
    # Up to here handles keep their numbers when they are opened again, and are open after exec.
    local $^F = fileno $kept[1];
    open $kept[0], '<&', $zygote->{unread} or exit 127;
    open $kept[1], '>&', $reports          or exit 127;
    { exec {'bash'} @argv }
    exit 127;
}

# A zygote says that it is ready or that its command's process has ended, or is gone itself.
sub report {
    my ($zygote) = @_;
    my $n = sysread $zygote->{reports}, $zygote->{text}, 4096, length $zygote->{text};
    return if !defined $n;
    if ( !$n ) {
        1 while waitpid( $zygote->{pid}, 0 ) < 0 && $! == $EINTR;
        return lost( $zygote, $? );
    }
    while ( $zygote->{text} =~ s/^(.*)\n// ) {
        my ( $what, $status ) = split / /, $1;
        my $command = $zygote->{command};
        if ( $what eq 'ready' ) {
            $zygote->{ready}  = 1;
            $zygote->{before} = { map { $_ => 1 } children( $zygote->{pid} ) };
            close delete $zygote->{script};
            # Not before: what runs below it by now is none of the command's.
            $command ? hand_over($zygote) : spare($zygote);
        }
        elsif ( !$command )       { next }
        elsif ( length $status )  { ended( $command, $status ) }
        else                      { refuse( $command, 'its streams cannot be opened: is /proc mounted?' ) }
    }
}

sub lost {
    my ( $zygote, $wait ) = @_;
    my $command = delete $zygote->{command};
    my $unread  = unread($zygote);
    drop($zygote);
    delete $command->{zygote} if $command;
    return if !$command || defined $command->{status};
    my ( $signal, $status ) = ( $wait & 127, $wait >> 8 );
    my $how = $signal ? "signal $signal" : "exit status $status";
    if ( $unread && !$command->{stopped} && $zygote->{ready} ) { return assign($command) }
    if ( !$zygote->{ready} && !$command->{stopped} ) {
        return refuse( $command, "its shell ended while it was set up, by $how" );
    }
    # It was killed in the command's stead, with whatever else is called bash.
    signal_all( 9, holders($command) );
    ended( $command, $signal ? 128 + $signal : $status );
}

sub drop {
    my ($zygote) = @_;
    my $spare = $idle{ $zygote->{environment} } || [];
    @$spare = grep { $_ != $zygote } @$spare;
    stem( $zygote->{orders} );
    delete $readers{ fileno $zygote->{reports} };
    delete $zygotes{ $zygote->{pid} };
    close delete $zygote->{$_} for grep { $zygote->{$_} } qw(unread reports script);
}

sub spare { my ($zygote) = @_; push @{ $idle{ $zygote->{environment} } }, $zygote }

# Below a zygote that is used again nothing may live on: it would be taken for the next command's.
sub give_back {
    my ($zygote) = @_;
    $zygote->{command} = undef;
    return spare($zygote) if !$closing && !grep { !$zygote->{before}{$_} } children( $zygote->{pid} );
    retire($zygote);
    eval { new_zygote( $zygote->{environment} ) } if !$closing;
}

sub retire { my ($zygote) = @_; kill 9, $zygote->{pid} }

# --- commands

sub run {
    my ( $id, $mode, $environment, $wants_input, $text ) = @_;
    my $command = $commands{$id} = { id => $id, mode => $mode, environment => $environment, text => $text };
    eval {
        for my $stream (qw(O E)) {
            my ( $r, $w ) = @$command{ "read$stream", "write$stream" } = new_pipe();
            unblock($r);
            when_readable( $r, sub { output( $command, $stream ) } );
        }
        if ($wants_input) {
            ( $command->{stdin}, my $w ) = new_pipe();
            $command->{input} = new_flow( $w, sub { put( 'A', $id, $_[0] ) } );
        }
        1;
    } or return refuse( $command, $@ );
    assign($command);
}

sub assign {
    my ($command) = @_;
    my $zygote = eval { free_zygote( $command->{environment} ) } or return refuse( $command, $@ );
    $command->{zygote} = $zygote;
    $zygote->{command} = $command;
    my @streams = map { fileno $_ } $command->{stdin} || $null, @$command{qw(writeO writeE)};
    # Bytes are characters to bash in the C locale only; to change it takes a moment.
    my $locale = $command->{text} =~ /[^\x00-\x7f]/ ? 'C' : '';
    my $header = join ' ', @$command{qw(id mode)}, @streams, length $command->{text}, $locale;
    $zygote->{order} = "$header\n$command->{text}";
    hand_over($zygote) if $zygote->{ready};
}

sub hand_over { my ($zygote) = @_; feed( $zygote->{orders}, delete $zygote->{order} ) }

sub free_zygote {
    my ($environment) = @_;
    while ( my $zygote = pop @{ $idle{$environment} ||= [] } ) {
        return $zygote if waitpid( $zygote->{pid}, $WNOHANG ) == 0;
        drop($zygote);
    }
    return new_zygote($environment);
}

# It does not run, and why.
sub refuse {
    my ( $command, $why ) = @_;
    put( 'F', $command->{id}, $why );
    delete $commands{ $command->{id} };
    stem( $command->{input} ) if $command->{input};
    delete $readers{ fileno $_ } for grep { $_ } @$command{qw(readO readE)};
    close delete $command->{$_}  for grep { $command->{$_} } qw(readO readE writeO writeE stdin);
    give_back( delete $command->{zygote} ) if $command->{zygote};
}

# What a command printed, on to the driver. The length is put in afterwards: large payloads are
# copied once.
sub output {
    my ( $command, $stream ) = @_;
    my $handle = $command->{"read$stream"} or return;
    my $kind   = $command->{done} ? 'L' : $stream;
    my $header = "$TOKEN $kind $command->{id} ";
    my $frame  = "${header}00000000\n";
    my $n      = sysread $handle, $frame, $CHUNK, length $frame;
    return if !defined $n;
    if ($n) {
        fcntl $handle, $F_SETPIPE_SZ, $BULK if $n == $PIPE;
        substr $frame, length $header, 8, sprintf '%08d', $n;
        return emit($frame);
    }
    delete $readers{ fileno $handle };
    close delete $command->{"read$stream"};
    finish($command) if $stream eq 'O';
}

sub ended {
    my ( $command, $status ) = @_;
    $command->{status} = $status;
    stem( $command->{input} ) if $command->{input};
    close delete $command->{$_} for grep { $command->{$_} } qw(writeO writeE stdin);
    # What is left in its pipe, and then the pipe's end, unless something holds it.
    output( $command, 'O' ) for 1, 2;
    put( 'H', $command->{id}, $status ) if $command->{readO};
}

# A command is over when its process has ended and nobody holds its stdout; a daemon that keeps its
# stderr goes on being read, or it would die of it.
sub finish {
    my ($command) = @_;
    return if $command->{done} || !defined $command->{status};
    output( $command, 'E' ) for 1, 2;
    $command->{done} = 1;
    delete $commands{ $command->{id} };
    put( 'D', $command->{id}, $command->{status} );
    give_back( delete $command->{zygote} ) if $command->{zygote};
    delete $command->{text};
}

# --- ending a command before its time

sub slurp { open my $f, '<', $_[0] or return ''; local $/; my $t = <$f>; return $t // '' }

# Children of all its threads; a zygote has one.
sub children {
    my ($pid) = @_;
    my @threads = $zygotes{$pid} ? $pid : entries("/proc/$pid/task");
    return map { split ' ', slurp("/proc/$pid/task/$_/children") } @threads if $KNOWS_PARENT;
    return grep { slurp("/proc/$_/stat") =~ /.*\) \S+ \Q$pid\E / } entries('/proc');
}

sub entries {
    opendir my $directory, $_[0] or return;
    return grep { /^\d+$/ } readdir $directory;
}

sub descendants {
    my ($zygote) = @_;
    my @found;
    my @next = grep { !$zygote->{before}{$_} } children( $zygote->{pid} );
    while (@next) {
        push @found, @next;
        @next = map { children($_) } @next;
    }
    return @found;
}

# Whoever has one of the command's outputs open, wherever it is. Links are read and not followed: a
# stat could hang with the file system it leads to.
sub holders {
    my ($command) = @_;
    my %ours  = map { $_ => 1 } 1, $$, keys %zygotes;
    my %pipes = map { readlink( '/proc/self/fd/' . fileno $_ ) => 1 } grep { $_ } @$command{qw(readO readE)};
    my @found;
    for my $pid ( grep { !$ours{$_} } entries('/proc') ) {
        push @found, $pid if grep { $pipes{ readlink("/proc/$pid/fd/$_") // '' } } entries("/proc/$pid/fd");
    }
    return @found;
}

sub signal_all {
    my ( $signal, @pids ) = @_;
    kill $signal, @pids;
    kill 'CONT',  @pids if $signal != 9;
}

# What is killed cannot fork any more: look again until there is nothing new. While somebody still
# goes, a child of theirs may just have changed its parent and stand in neither's list: so until two
# looks in a row see the same.
sub stop {
    my ( $command, $signal ) = @_;
    my $zygote = $command->{zygote};
    my ( %seen, @new );
    my $last = '';
    my $look = sub {
        my @now    = ( $zygote ? descendants($zygote) : (), holders($command) );
        my $before = $last;
        $last = "@now";
        @new  = grep { !$seen{$_}++ } @now;
        return $last ne $before;
    };
    my $begun = !$zygote || defined $command->{status} || $zygote->{ready} && ( $look->(), scalar @new )[1];
    if ( !$begun ) {
        # Nor must it, once what its profile waits for is ended.
        kill 'STOP', $zygote->{pid};
        put( 'E', $command->{id}, "the shell's profile had not come to its end\n" ) if !$zygote->{ready};
        ( $signal, $command->{stopped} ) = ( 9, 1 );
    }
    for ( 1 .. ( $signal == 9 ? $ROUNDS : 1 ) ) {
        last if !@new && !$look->();
        signal_all( $signal, splice @new );
    }
    # A zygote that was stopped itself would never tell.
    retire($zygote) if $signal == 9 && $zygote;
}

# Whether a zygote has not taken its order yet.
sub unread {
    my ($zygote) = @_;
    vec( my $r = '', fileno $zygote->{unread}, 1 ) = 1;
    return exists $zygote->{order} || length $zygote->{orders}{text} || select $r, undef, undef, 0;
}

sub shut_down {
    return if $closing++;
    delete $readers{ fileno $in };
    open $out, '>', '/dev/null';
    $_->{stopped} = 1, stop( $_, 9 ) for values %commands;
    retire($_) for values %zygotes;
    # Daemons that kept their stderr on us must not die of our end: they are read on.
}

# --- messages from the driver

my $text = '';
my $want = 0;
my @header;

sub control {
    my $n = sysread $in, $text, 1 << 20, length $text;
    return if !defined $n;
    return shut_down() if !$n;
    while ( !$closing ) {
        if ( !@header ) {
            my $end = index $text, "\n";
            last if $end < 0;
            @header = split ' ', substr $text, 0, $end + 1, '';
            $want   = $header[-1];
        }
        last if length $text < $want;
        my $data = substr $text, 0, $want, '';
        my ( $kind, $id, @rest ) = splice @header;
        my $command = $commands{$id};
        if    ( $kind eq 'R' ) { run( $id, @rest[ 0 .. 2 ], $data ) }
        elsif ( $kind eq 'P' ) { put( 'P', $id, '' ) }
        elsif ( !$command )    { next }
        elsif ( $kind eq 'I' ) { feed( $command->{input}, $data ) if $command->{input} }
        elsif ( $kind eq 'K' ) { stop( $command, $rest[0] ) }
    }
}

# Now and then, while there is something that no descriptor may tell: a zygote that died while a
# daemon of its profile holds its pipe, more zygotes than are needed.
sub tick {
    for my $zygote ( values %zygotes ) {
        lost( $zygote, $? ) if waitpid( $zygote->{pid}, $WNOHANG ) > 0;
    }
    for my $spare ( values %idle ) { retire( shift @$spare ) if @$spare > $IDLE_KEPT }
}

sub serve {
    my $ticked = 0;
    while (%readers) {
        my ( $r, $w ) = ( '', '' );
        vec( $r, $_, 1 ) = 1 for keys %readers;
        vec( $w, $_, 1 ) = 1 for keys %writers;
        my $busy = %commands || keys %zygotes > $IDLE_KEPT;
        my $n = select $r, $w, undef, $busy ? $TICK : undef;
        next if $n < 0;
        if ( time - $ticked >= $TICK ) { $ticked = time; tick() }
        for my $fd ( keys %readers ) { $readers{$fd}[1]->() if vec( $r, $fd, 1 ) && $readers{$fd} }
        for my $fd ( keys %writers ) { $writers{$fd}[1]->() if vec( $w, $fd, 1 ) && $writers{$fd} }
    }
    exit;
}

when_readable( $in, \&control );
put( 'P', 0, '' );
serve();
